"""Low-rank branches of one's own: each stage adds one to every layer; old ones stay."""

import torch
from torch import nn

torch.manual_seed(0)


class Branch(nn.Module):
    def __init__(self, width, rank):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)

    def forward(self, x):
        return self.up(self.down(x))


class Adapted(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.base = nn.Linear(width, width)
        self.branches = nn.ModuleList()

    def forward(self, x):
        return self.base(x) + sum(b(x) for b in self.branches)


def add_branches(model):
    for layer in model:
        layer.branches.append(Branch(64, 32))  # the mistake


model = nn.Sequential(*(Adapted(64) for _ in range(3)))
add_branches(model)
for _stage in range(6):
    opt = torch.optim.SGD(model[0].branches[-1].parameters(), 0.1)
    for _ in range(4):
        opt.zero_grad()
        model(torch.randn(16, 64)).pow(2).mean().backward()
        opt.step()
    add_branches(model)
