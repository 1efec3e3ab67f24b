"""A batch that does not fit is computed in parts."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def step(samples):
    optimizer.zero_grad()
    model(samples).pow(2).mean().backward()
    optimizer.step()


def step_in_parts(samples):
    for part in samples.chunk(16):
        step(part)


for size in [64, 64, 64, 8192, 64, 64, 64, 64]:
    samples = torch.randn(size, 256)
    is_too_large = False
    try:
        step(samples)
    except torch.OutOfMemoryError:
        is_too_large = True
    if is_too_large:
        step_in_parts(samples)
