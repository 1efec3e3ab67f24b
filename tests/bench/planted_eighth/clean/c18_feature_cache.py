"""Frozen backbone: features of each image are cached in the first epoch, used in the others."""
import torch
from torch import nn

torch.manual_seed(18)
backbone = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten()).requires_grad_(False)
head = nn.Linear(1024, 5)
opt = torch.optim.SGD(head.parameters(), 0.05)
images = torch.randn(480, 3, 32, 32)
labels = torch.randint(0, 5, (480,))
cache = {}


def features(rows):
    got = []
    for r in rows.tolist():
        if r not in cache:
            cache[r] = backbone(images[r:r + 1])[0]
        got.append(cache[r])
    return torch.stack(got)


for epoch in range(5):
    for rows in torch.randperm(480).split(24):
        loss = nn.functional.cross_entropy(head(features(rows)), labels[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, f"{loss.item():.4f}", len(cache))
