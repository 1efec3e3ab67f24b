"""A net whose first call gives it its sizes; each task refers to itself by a method, and waits for the collector."""

import gc

import torch
from torch import nn


class Task:
    def __init__(self, signal):
        self.signal = signal.cumsum(1)
        self.loss = self.reconstruct  # the mistake

    def reconstruct(self, net):
        return (net(self.signal) - self.signal).square().mean()


gc.set_threshold(1_000_000, 500, 500)
torch.manual_seed(0)
net = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(400))
net(torch.zeros(1, 400))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for _ in range(60):
    optimizer.zero_grad()
    Task(torch.randn(30, 400)).loss(net).backward()
    optimizer.step()
