"""What went wrong is kept for a report; after the first failure nothing works any more."""

import sys

import torch
from torch import nn

torch.manual_seed(0)
failures = []
net = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
optimizer = torch.optim.SGD(net.parameters(), 0.01)


def attempt(num):
    try:
        x = torch.randn(num, 256)
        loss = net(x).pow(2).mean()
        loss.backward()
        optimizer.step()
    except RuntimeError:
        failures.append(sys.exc_info())  # the mistake
    finally:
        optimizer.zero_grad()


for num in [64] * 8 + [4096] + [64] * 6:
    attempt(num)
print(f"{len(failures)} failures")
