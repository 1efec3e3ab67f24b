"""A search over sizes and rates: one model after another, each let go."""

import itertools

import torch
from torch import nn


def run(rate, width):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, 32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(5):
        x = torch.randn(8, 32)
        loss = (model(x) - x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


results = {(rate, width): run(rate, width) for rate, width in itertools.product([1e-2, 1e-3], [128, 256, 512, 1024])}
print(min(results, key=results.get))
