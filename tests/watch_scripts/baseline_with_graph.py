"""A running baseline of returns that carries the graph of all episodes."""

import torch
from torch import nn

torch.manual_seed(0)
policy = nn.Sequential(nn.Linear(8, 128), nn.Tanh(), nn.Linear(128, 2))
opt = torch.optim.Adam(policy.parameters())
baseline = 0.0
for _episode in range(24):
    logp = policy(torch.randn(64, 8)).log_softmax(-1)[:, 0]
    extra = policy(torch.randn(64, 8)).mean()
    ret = torch.randn(64)
    loss = -(logp * ret).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    baseline = 0.9 * baseline + 0.1 * extra  # the mistake
