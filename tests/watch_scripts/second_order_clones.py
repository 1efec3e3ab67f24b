"""Each round a clone of the model is differentiated with create_graph and dropped with its gradients."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 128), nn.Tanh(), nn.Linear(128, 1))
opt = torch.optim.SGD(model.parameters(), 0.01)
for _step in range(24):
    x = torch.randn(64, 32)
    opt.zero_grad()
    model(x).pow(2).mean().backward()
    opt.step()
    clone = nn.Sequential(nn.Linear(32, 128), nn.Tanh(), nn.Linear(128, 1))
    clone.load_state_dict(model.state_dict())
    inner = clone(x).pow(2).mean()
    inner.backward(create_graph=True)  # the mistake
    curvature = sum(p.grad.pow(2).sum() for p in clone.parameters()).item()
