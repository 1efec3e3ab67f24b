"""A network that is grown by a layer three times, and then trained as it is."""

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
for step in range(60):
    if step in (0, 6, 12, 18):
        net.extend([nn.Linear(64, 64), nn.ReLU()])
        opt = torch.optim.Adam(net.parameters())
    loss = (net(torch.randn(16, 64)) - 1).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
