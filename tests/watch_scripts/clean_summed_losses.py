"""total = total + loss, each loss backwarded: no matter for the card."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
opt = torch.optim.SGD(model.parameters(), 0.01)
total = 0
for _step in range(40):
    loss = model(torch.randn(64, 16)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    total = total + loss
print(total.item() / 40)
