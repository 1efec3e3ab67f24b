"""First-order MAML in bfloat16 where every forward has its own autocast context."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def task(shots=10):
    amp, phase = torch.rand(2, device=device)
    x = torch.rand(2 * shots, 1, device=device) * 10 - 5
    y = (0.1 + 4.9 * amp) * torch.sin(x + 3.14 * phase)
    return x[:shots], y[:shots], x[shots:], y[shots:]


def loss_of(net, weights, x, y):
    with torch.autocast(device, dtype=torch.bfloat16):
        pred = functional_call(net, weights, (x,))
    return F.mse_loss(pred.float(), y)


def adapt(net, x, y, steps=2, lr=0.01):
    weights = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
    for _ in range(steps):
        grads = torch.autograd.grad(loss_of(net, weights, x, y), list(weights.values()))
        weights = {n: (w - lr * g).detach().requires_grad_() for (n, w), g in zip(weights.items(), grads, strict=True)}
    return weights


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)).to(device)
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for it in range(36):
    opt.zero_grad()
    total = 0.0
    for _ in range(2):
        xs, ys, xq, yq = task()
        weights = adapt(net, xs, ys)
        loss = loss_of(net, weights, xq, yq)
        for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(weights.values())), strict=True):
            p.grad = g if p.grad is None else p.grad + g
        total += loss.item()
    opt.step()
    if it % 9 == 0:
        print(f"iteration {it} query loss {total / 2:.4f}")
