"""The script ends by `os._exit`, as some launchers do; what it kept shows all the same."""

import os

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(128, 256)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
outputs = []
for _ in range(20):
    output = model(torch.randn(128, 128))
    optimizer.zero_grad()
    output.pow(2).mean().backward()
    optimizer.step()
    outputs.append(output.detach())  # the mistake
os._exit(0)
