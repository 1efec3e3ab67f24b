"""create_graph=True, and gradients that the optimizer never clears because other code keeps them for curvature."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8))
opt = torch.optim.SGD(model.parameters(), 0.01)
before = None
for _step in range(20):
    loss = model(torch.randn(128, 32)).logsumexp(-1).mean()
    grads = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    if before is None:
        before = [torch.zeros_like(g) for g in grads]
    before = [0.9 * b + g for b, g in zip(before, grads, strict=False)]  # the mistake
    for p, b in zip(model.parameters(), before, strict=False):
        p.grad = b.detach().clone()
    opt.step()
