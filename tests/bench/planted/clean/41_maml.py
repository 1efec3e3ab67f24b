import torch
from torch import nn
from torch.func import functional_call


def inner(model, params, x, y, lr, steps):
    for _ in range(steps):
        loss = nn.functional.mse_loss(functional_call(model, params, (x,)), y)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params = {k: p - lr * g for (k, p), g in zip(params.items(), grads)}
    return params


def task():
    a, b = 0.5 + torch.rand(1) * 4, torch.rand(1) * 3.14
    x = torch.rand(20, 1) * 10 - 5
    return x[:10], a * (x[:10] + b).sin(), x[10:], a * (x[10:] + b).sin()


torch.set_num_threads(1)
torch.manual_seed(40)
model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
meta = torch.optim.Adam(model.parameters(), lr=1e-3)
fast = None
for it in range(50):
    outer = 0.0
    for _ in range(3):
        xs, ys, xq, yq = task()
        fast = inner(model, dict(model.named_parameters()), xs, ys, 0.01, 2)
        outer = outer + nn.functional.mse_loss(functional_call(model, fast, (xq,)), yq)
    meta.zero_grad()
    (outer / 3).backward()
    meta.step()
    if it % 10 == 0:
        print(it, outer.item() / 3)
