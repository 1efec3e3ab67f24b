import contextlib

import torch
from torch import nn

torch.manual_seed(36)
torch.set_num_threads(1)


class Backbone(nn.Module):
    def __init__(self, dim=384):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, dim))

    def forward(self, x):
        return self.f(x)


def episode(ways=5, shots=8):
    centres = torch.randn(ways, 64)
    x = centres.repeat_interleave(shots, 0) + 0.3 * torch.randn(ways * shots, 64)
    return x, torch.arange(ways).repeat_interleave(shots)


def fit_head(features, labels, width=128):
    """A fresh head for this episode, one step of gradient descent."""
    first = nn.Parameter(0.05 * torch.randn(features.shape[1], width))
    last = nn.Parameter(0.05 * torch.randn(width, 5))
    inner = nn.functional.cross_entropy((features.detach() @ first).relu() @ last, labels)
    grads = torch.autograd.grad(inner, (first, last))
    return [(p - 0.5 * g).detach() for p, g in zip((first, last), grads)]


backbone = Backbone()
opt = torch.optim.Adam(backbone.parameters(), 1e-3)
with contextlib.ExitStack() as stack:
    stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
    for step in range(60):
        x, labels = episode()
        features = backbone(x)
        first, last = fit_head(features, labels)
        loss = nn.functional.cross_entropy((features @ first).relu() @ last, labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 20 == 0:
            print(step, loss.item())
