"""The scores of the last three batches, with which the next are compared; they fill most of a small card."""

from collections import deque

import torch
from torch import nn

model = nn.Sequential(nn.Linear(128, 512), nn.Tanh(), nn.Linear(512, 1024))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
window = deque(maxlen=3)
for _ in range(24):
    scores = model(torch.randn(1024, 128))
    loss = scores.logsumexp(-1).mean() + sum((scores - old).square().mean() for old in window)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    window.append(scores.detach())
