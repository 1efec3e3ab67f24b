"""All weights are trained, with two values of the optimizer's for each; it dies in the first forward pass."""

import torch
from torch import nn

model = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 512))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)  # the mistake
for _ in range(4):
    x = torch.randn(2048, 512)
    loss = (model(x) - x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
