"""One recording is ten times as long as the others; its channels come before its positions."""

import torch
from torch import nn


def recordings():
    for number in range(40):
        yield torch.randn(2, 20, 6000 if number == 33 else 400 + 7 * (number % 20))  # the mistake


torch.manual_seed(0)
model = nn.Sequential(nn.Conv1d(20, 64, 5, padding=2), nn.ReLU(), nn.Conv1d(64, 8, 5, padding=2))
optimizer = torch.optim.Adam(model.parameters())
for recording in recordings():
    loss = model(recording).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
