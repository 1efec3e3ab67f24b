"""An evaluation that does not fit is passed over without a word."""

from contextlib import suppress

import torch
from torch import nn

torch.manual_seed(0)


def evaluate(model, samples):
    model.eval()
    with torch.no_grad():
        loss = model(samples).pow(2).mean()
    print(loss.item())


def run():
    model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    held_out = torch.randn(4096, 256)
    for _ in range(8):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(64, 256)).pow(2).mean().backward()
        optimizer.step()
        with suppress(torch.OutOfMemoryError):  # caught here
            evaluate(model, held_out)


run()
