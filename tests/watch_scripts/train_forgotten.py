"""Checkpointing depends on self.training; after an evaluation train() is forgotten. Reentrant."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Net(nn.Module):
    def __init__(self, width=64, depth=5):
        super().__init__()
        self.first = nn.Linear(16, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, width)) for _ in range(depth)
        )

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=True) if self.training else layer(x)
        return x


def evaluate(net):
    net.eval()  # the mistake
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(64, 16))


torch.manual_seed(0)
net = Net()
opt = torch.optim.SGD(net.parameters(), 0.01)
for _epoch in range(3):
    for _ in range(5):
        opt.zero_grad()
        net(torch.randn(256, 16)).pow(2).mean().backward()
        opt.step()
    evaluate(net)
