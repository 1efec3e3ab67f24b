"""Each round wraps the projection in one more low-rank layer."""

import torch
from torch import nn


class LoRA(nn.Module):
    def __init__(self, base, rank=16):
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(64, rank) * 0.01)
        self.b = nn.Parameter(torch.zeros(rank, 64))

    def forward(self, x):
        return self.base(x) + x @ self.a @ self.b


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj, self.head = nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.proj(x))


torch.manual_seed(0)
net = Net()
opt = torch.optim.AdamW(net.parameters())
for _round in range(6):
    for _ in range(5):
        opt.zero_grad()
        net(torch.randn(32, 64)).pow(2).mean().backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(32, 64))
    net.train()
    net.proj = LoRA(net.proj)  # the mistake
    opt.add_param_group({"params": [net.proj.a, net.proj.b]})
