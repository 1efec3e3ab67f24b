"""Sharpness is followed by Hutchinson's estimate; grads are cleared in place."""
import torch
from torch import nn

torch.manual_seed(10)
net = nn.Sequential(nn.Linear(64, 160), nn.Tanh(), nn.Linear(160, 160), nn.Tanh(), nn.Linear(160, 1))
params = [p for p in net.parameters()]


def clear(ps):
    for p in ps:
        if p.grad is not None:
            p.grad = torch.zeros_like(p)


class Curvature:
    def __init__(self):
        self.trace, self.last = [], None
        self.norms = []

    def __call__(self, loss):
        loss.backward(create_graph=True)  # LEAK
        gs = [p.grad for p in params]
        norm = sum(g.pow(2).sum() for g in gs)
        self.norms.append(norm)  # LEAK
        v = [torch.randint_like(g, 2) * 2 - 1 for g in gs]
        hv = torch.autograd.grad(gs, params, v, retain_graph=True)
        self.trace.append(sum((a * b).sum().item() for a, b in zip(hv, v)))
        for p in params:
            p.grad = p.grad.detach()


probe = Curvature()
for k in range(60):
    x = torch.randn(64, 64)
    y = x[:, :1].sin()
    clear(params)
    loss = (net(x) - y).pow(2).mean()
    probe(loss)
    with torch.no_grad():
        for p in params:
            p -= 0.01 * p.grad
    if k % 20 == 19:
        print(k + 1, f"{loss.item():.4f} trace {probe.trace[-1]:.2f} norm {probe.norms[-1].item():.4f}")
