import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Backbone(nn.Module):
    def __init__(self, dim=192, depth=4):
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 8, stride=8)
        self.blocks = nn.ModuleList([nn.Linear(dim, dim) for _ in range(depth)])
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        h = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            h = h + F.relu(block(h))
        return self.head(h.mean(1))


class FineTuner:
    def __init__(self):
        self.model = Backbone().to(device)
        self.model.requires_grad_(False)
        self.model.head.requires_grad_(True)
        self.lrs = []
        self.reset_optimizer()

    def reset_optimizer(self):
        params = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(params, lr=1e-3)
        self.scheduler = CosineAnnealingLR(self.optimizer, T_max=16)

    def unfreeze(self, depth):
        self.model.blocks[-depth].requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        self.reset_optimizer()

    def step(self):
        x, y = torch.rand(8, 3, 32, 32, device=device), torch.randint(0, 10, (8,), device=device)
        loss = F.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.lrs.append(self.scheduler.get_last_lr()[0])
        return loss.item()


tuner = FineTuner()
for stage in range(3):
    if stage:
        tuner.unfreeze(stage)
    losses = [tuner.step() for _ in range(30)]
    print(f"stage {stage} loss {sum(losses) / len(losses):.4f} lr {tuner.lrs[-1]:.2e}")
