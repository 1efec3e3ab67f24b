"""Detector head whose average precision is reset after every epoch."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class BinnedPrecision(nn.Module):
    """Precision and recall at fixed thresholds, so the state has a fixed size."""

    def __init__(self, bins=50):
        super().__init__()
        self.register_buffer("thresholds", torch.linspace(0, 1, bins))
        self.register_buffer("tp", torch.zeros(bins))
        self.register_buffer("fp", torch.zeros(bins))
        self.register_buffer("fn", torch.zeros(bins))

    @torch.no_grad()
    def update(self, scores, labels):
        above = scores.flatten()[:, None] >= self.thresholds
        pos = labels.flatten()[:, None] > 0.5
        self.tp += (above & pos).sum(0)
        self.fp += (above & ~pos).sum(0)
        self.fn += (~above & pos).sum(0)

    def compute(self):
        precision = self.tp / (self.tp + self.fp).clamp(min=1)
        recall = self.tp / (self.tp + self.fn).clamp(min=1)
        return -torch.trapezoid(precision, recall)

    def reset(self):
        for name in ("tp", "fp", "fn"):
            getattr(self, name).zero_()


torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 2, 1)).to(device)
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
metric = BinnedPrecision().to(device)
for epoch in range(5):
    for _ in range(8):
        img = torch.rand(6, 3, 32, 32, device=device)
        obj = (torch.rand(6, 2, 16, 16, device=device) < 0.1).float()
        logits = model(img)
        loss = F.binary_cross_entropy_with_logits(logits, obj)
        opt.zero_grad()
        loss.backward()
        opt.step()
        metric.update(logits.sigmoid(), obj)
    print(f"epoch {epoch} loss {loss.item():.4f} AP {metric.compute().item():.4f}")
    metric.reset()
