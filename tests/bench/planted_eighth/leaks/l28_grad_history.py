"""A decorator around the optimizer's step notes the gradients, to compare noise over time."""
import collections
import functools
import torch
from torch import nn


def with_noise_scale(history):
    def deco(step):
        @functools.wraps(step)
        def wrapped(*a, **k):
            for name, p in net.named_parameters():
                if p.grad is not None and p.ndim > 1:
                    history[name].append(p.grad.clone())  # LEAK
            return step(*a, **k)
        return wrapped
    return deco


torch.manual_seed(28)
net = nn.Sequential(nn.Linear(100, 300), nn.ReLU(), nn.Linear(300, 100))
opt = torch.optim.SGD(net.parameters(), 1e-2)
hist = collections.defaultdict(list)
update = with_noise_scale(hist)(opt.step)

for k in range(80):
    x = torch.randn(32, 100)
    loss = (net(x) - x.roll(1, 1)).pow(2).mean()
    net.zero_grad()
    loss.backward()
    update()
    if k % 20 == 19:
        g = torch.stack(hist["0.weight"][-8:])
        print(k + 1, f"{loss.item():.4f} noise {float(g.var(0).sum() / g.mean(0).pow(2).sum()):.2f}")
