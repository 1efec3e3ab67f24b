"""The evaluation's batch is fixed and too large, whatever batch size is tried for the training."""

import torch
from torch import nn


def train(batch_size):
    model = nn.Linear(256, 256)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(batch_size, 256)).pow(2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        model(torch.randn(32768, 256))


batch_size = 8
while batch_size:
    try:
        train(batch_size)
        break
    except torch.OutOfMemoryError:  # caught here
        batch_size //= 2
else:
    raise RuntimeError("no batch size fits:\nreached zero")
