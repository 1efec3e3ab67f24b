"""Host memory: each step's rows are kept as Python objects (2 MiB a step)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(16, 4)
opt = torch.optim.SGD(model.parameters(), 0.01)
records = []


def describe(step):
    return [f"{step}-{i}-" + "x" * 60 for i in range(16000)]


for step in range(60):
    loss = model(torch.randn(8, 16)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    records.extend(describe(step))  # the mistake
