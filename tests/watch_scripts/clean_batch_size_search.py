"""The largest batch size that fits is looked for, in a loop that a size that works leaves."""

import torch
from torch import nn


def train(batch_size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.randn(batch_size, 256)).pow(2).mean().backward()
        optimizer.step()


for batch_size in (8192, 4096, 64):
    try:
        train(batch_size)
        break
    except torch.OutOfMemoryError:
        print(f"{batch_size} is too large")
