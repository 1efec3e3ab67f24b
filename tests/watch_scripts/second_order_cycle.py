"""create_graph=True each step; gradients are zeroed by hand with zero_(), so that each keeps the graph before."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8))
opt = torch.optim.SGD(model.parameters(), 0.01)
for _step in range(24):
    loss = model(torch.randn(128, 32)).logsumexp(-1).mean()
    loss.backward(create_graph=True)  # the mistake
    opt.step()
    for p in model.parameters():
        p.grad = p.grad * 0
