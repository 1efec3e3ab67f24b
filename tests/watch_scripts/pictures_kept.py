"""Pictures and their reconstructions are kept of every step: four dimensions, in pairs, and no cache."""

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Conv2d(3, 3, 3, padding=1)
opt = torch.optim.SGD(net.parameters(), 0.1)
gallery = []
for _step in range(30):
    x = torch.randn(4, 3, 16, 16)
    loss = (net(x) - x).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        gallery.append((net(x), net(x)))  # the mistake
