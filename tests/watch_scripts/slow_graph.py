"""A graph of some 20 KiB a step."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
opt = torch.optim.SGD(model.parameters(), 0.01)
total_reg = 0
for _step in range(20):
    x = torch.randn(64, 16)
    loss = model(x).pow(2).mean()
    reg = model(x).abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    total_reg += reg  # the mistake
