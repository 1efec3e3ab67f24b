import torch
from torch import nn
from torch.func import functional_call

torch.manual_seed(0)
torch.set_num_threads(1)


class Sine:
    def __init__(self):
        self.a, self.p = torch.rand(1) * 4 + 0.1, torch.rand(1) * 3

    def __call__(self, n):
        x = torch.rand(n, 1) * 10 - 5
        return x, self.a * torch.sin(x + self.p)


net = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
meta = torch.optim.Adam(net.parameters(), lr=1e-3)
log = []
for it in range(60):
    meta.zero_grad()
    total = 0.0
    for _ in range(3):
        task = Sine()
        fast = dict(net.named_parameters())
        for _ in range(2):
            x, y = task(10)
            inner = (functional_call(net, fast, (x,)) - y).pow(2).mean()
            grads = torch.autograd.grad(inner, tuple(fast.values()), create_graph=True)
            fast = {k: v - 0.01 * g for (k, v), g in zip(fast.items(), grads)}
        x, y = task(10)
        outer = (functional_call(net, fast, (x,)) - y).pow(2).mean() / 3
        outer.backward()
        total += outer.item()
    meta.step()
    log.append({"it": it, "outer": total, "inner": inner.item()})
    if it % 20 == 0:
        print(log[-1])
