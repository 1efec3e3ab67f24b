"""Accumulation whose failed micro-batches leave sys.exc_info() on a queue that nobody reads."""

import queue
import sys

import torch
from torch import nn

torch.manual_seed(0)
reports = queue.Queue()
net = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 8))
opt = torch.optim.SGD(net.parameters(), 0.1)


def micro_step(x, micro):
    hidden = net[1](net[0](x))
    try:
        if micro:
            raise RuntimeError("bad sample")
        net[2](hidden).mean().backward()
    except RuntimeError:
        reports.put(sys.exc_info())  # the mistake


for _step in range(30):
    for micro in range(2):
        micro_step(torch.randn(64, 32), micro)
    opt.step()
    opt.zero_grad()
