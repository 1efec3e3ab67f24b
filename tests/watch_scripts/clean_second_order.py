"""create_graph=True for a penalty whose graph goes with its step."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8))
opt = torch.optim.SGD(model.parameters(), 0.01)
norms = []
for _step in range(24):
    loss = model(torch.randn(128, 32)).logsumexp(-1).mean()
    loss.backward(create_graph=True)
    norm = sum(p.grad.pow(2).sum() for p in model.parameters())
    norms.append(norm.item())
    (1e-3 * norm).backward()
    opt.step()
    opt.zero_grad()
