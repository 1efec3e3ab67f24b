import copy

import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(149)
torch.set_num_threads(1)


class G(nn.Module):
    def __init__(self, w=24):
        super().__init__()
        self.inp = nn.Linear(16, w * 16)
        self.stages = nn.ModuleList()
        self.out = nn.Conv2d(w, 3, 1)
        self.w = w

    def grow(self):
        self.stages.append(nn.Conv2d(self.w, self.w, 3, padding=1))

    def forward(self, z):
        h = self.inp(z).view(-1, self.w, 4, 4)
        for s in self.stages:
            h = F.leaky_relu(s(F.interpolate(h, scale_factor=2)), 0.2)
        return self.out(h)


class D(nn.Module):
    def __init__(self, w=24):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(3, w, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(w, w, 3, 2, 1), nn.LeakyReLU(0.2))
        self.o = nn.Linear(w, 1)

    def forward(self, x):
        return self.o(self.f(x).mean((2, 3)))


g, d = G(), D()
d_opt = torch.optim.Adam(d.parameters(), 2e-4, betas=(0.0, 0.99))
log = []
for it in range(120):
    if it in (0, 15, 30):
        g.grow()
        g_opt = torch.optim.Adam(g.parameters(), 2e-4, betas=(0.0, 0.99))
        ema = copy.deepcopy(g).requires_grad_(False)
    size = 4 * 2 ** len(g.stages)
    real = torch.rand(8, 3, size, size).requires_grad_()
    score = d(real)
    (grad,) = torch.autograd.grad(score.sum(), real, create_graph=True)
    d_loss = F.softplus(-score).mean() + F.softplus(d(g(torch.randn(8, 16)).detach())).mean() + grad.pow(2).sum((1, 2, 3)).mean()
    d_opt.zero_grad()
    d_loss.backward()
    d_opt.step()
    g_loss = F.softplus(-d(g(torch.randn(8, 16)))).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    for a, b in zip(ema.parameters(), g.parameters()):
        a.lerp_(b.detach(), 0.01)
    log.append((d_loss.item(), g_loss.item()))
    if it % 40 == 39:
        print(it, size, log[-1])
