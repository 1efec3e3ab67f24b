import torch
from torch import nn
from torch.func import functional_call

torch.manual_seed(120)
torch.set_num_threads(1)


def task(n=40):
    amp, phase = 0.5 + 4 * torch.rand(1), 3 * torch.rand(1)
    x = 10 * torch.rand(2 * n, 1) - 5
    y = amp * torch.sin(x + phase)
    return (x[:n], y[:n]), (x[n:], y[n:])


def mse(net, weights, batch):
    return (functional_call(net, weights, (batch[0],)) - batch[1]).pow(2).mean()


def adapt(net, support, lr=0.02, steps=2):
    fast = dict(net.named_parameters())
    for _ in range(steps):
        grads = torch.autograd.grad(mse(net, fast, support), list(fast.values()), create_graph=True)
        fast = {k: w - lr * g for (k, w), g in zip(fast.items(), grads)}
    return fast


net = nn.Sequential(nn.Linear(1, 80), nn.Tanh(), nn.Linear(80, 80), nn.Tanh(), nn.Linear(80, 1))
opt = torch.optim.Adam(net.parameters(), 1e-3)
seen = {}
for step in range(40):
    outer = torch.zeros(())
    for i in range(3):
        support, query = task()
        q = mse(net, adapt(net, support), query)
        seen[step, i] = q.item()
        outer = outer + q
    opt.zero_grad()
    outer.backward()
    opt.step()
    if step % 10 == 0:
        print(step, outer.item() / 3, len(seen))
