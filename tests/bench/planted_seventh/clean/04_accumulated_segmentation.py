"""Segmentation with gradient accumulation over micro-batches."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SegNet(nn.Module):
    def __init__(self, classes=5, ch=16):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(3, ch, 3, 2, 1), nn.ReLU(), nn.Conv2d(ch, ch * 2, 3, 2, 1), nn.ReLU())
        self.dec = nn.Conv2d(ch * 2, classes, 1)

    def forward(self, x):
        return F.interpolate(self.dec(self.enc(x)), scale_factor=4, mode="bilinear")


def dice(logits, mask):
    prob = logits.softmax(1)
    hot = F.one_hot(mask, prob.shape[1]).permute(0, 3, 1, 2).float()
    inter = (prob * hot).sum((2, 3))
    return 1 - (2 * inter / (prob + hot).sum((2, 3)).clamp(min=1e-6)).mean()


class Trainer:
    def __init__(self, model, accumulate):
        self.model = model
        self.accumulate = accumulate
        self.opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
        self.micro = 0
        self.running = 0.0

    def micro_step(self, image, mask):
        logits = self.model(image)
        loss = (F.cross_entropy(logits, mask) + dice(logits, mask)) / self.accumulate
        loss.backward()
        self.running += loss.detach().item()
        self.micro += 1
        if self.micro % self.accumulate:
            return None
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        value, self.running = self.running, 0.0
        return value


torch.manual_seed(0)
trainer = Trainer(SegNet().to(device), accumulate=4)
log = []
for _ in range(120):
    image = torch.rand(2, 3, 32, 32, device=device)
    mask = torch.randint(5, (2, 32, 32), device=device)
    value = trainer.micro_step(image, mask)
    if value is not None:
        log.append(value)
print(f"{len(log)} updates, first {log[0]:.4f} last {log[-1]:.4f}")
