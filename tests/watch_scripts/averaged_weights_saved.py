"""Averaged weights, which nobody calls, are copied on the card before they are written to a file."""

import copy
import io

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(24, 512), nn.ELU(), nn.Linear(512, 512), nn.ELU(), nn.Linear(512, 2))
averaged = copy.deepcopy(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(1, 25):
    optimizer.zero_grad()
    model(torch.randn(16, 24)).abs().mean().backward()
    optimizer.step()
    with torch.no_grad():
        for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 0.05)
    if step % 12 == 0:
        torch.save(copy.deepcopy(averaged).double().state_dict(), io.BytesIO())  # the mistake
