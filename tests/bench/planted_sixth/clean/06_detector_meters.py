import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SmoothedValue:
    def __init__(self, window=20):
        self.window, self.values, self.total, self.count = window, [], 0.0, 0

    def update(self, value):
        self.values = (self.values + [value])[-self.window :]
        self.total += value
        self.count += 1

    @property
    def global_avg(self):
        return self.total / self.count


class AnchorFreeDetector(nn.Module):
    def __init__(self, ch=24, classes=4):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, ch, 3, 2, 1), nn.ReLU(), nn.Conv2d(ch, ch, 3, 2, 1), nn.ReLU(), nn.Conv2d(ch, ch, 3, 1, 1)
        )
        self.cls = nn.Conv2d(ch, classes, 1)
        self.reg = nn.Conv2d(ch, 4, 1)

    def forward(self, images, targets):
        f = F.relu(self.backbone(images))
        cls, reg = self.cls(f), self.reg(f)
        pos = targets["heat"] > 0.5
        return {
            "loss_cls": F.binary_cross_entropy_with_logits(cls, targets["heat"]),
            "loss_reg": (reg - targets["boxes"]).abs().mean(),
            "recall": (cls.sigmoid()[pos] > 0.5).float().mean().detach(),
        }


def batch(n=6, size=96):
    heat = (torch.rand(n, 4, size // 4, size // 4, device=device) > 0.95).float()
    return torch.rand(n, 3, size, size, device=device), {
        "heat": heat,
        "boxes": torch.rand(n, 4, size // 4, size // 4, device=device),
    }


model = AnchorFreeDetector().to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
meters = {}
epoch_loss = torch.zeros((), device=device)
for step in range(80):
    out = model(*batch())
    losses = out["loss_cls"] + out["loss_reg"]
    optimizer.zero_grad()
    losses.backward()
    optimizer.step()
    epoch_loss += losses.detach()
    for name, value in out.items():
        meters.setdefault(name, SmoothedValue()).update(value.item())
    if step % 20 == 19:
        print(step, {k: round(m.global_avg, 4) for k, m in meters.items()}, epoch_loss.item() / (step + 1))
