import math

import torch
from torch import nn
from torch.nn import functional as F


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128))

    def forward(self, x):
        return F.normalize(self.f(x), dim=-1)


def nt_xent(a, b, t=0.2):
    z = torch.cat([a, b])
    sim = (z @ z.t() / t).fill_diagonal_(-math.inf)
    n = a.shape[0]
    return F.cross_entropy(sim, torch.cat([torch.arange(n, 2 * n), torch.arange(n)]))


@torch.no_grad()
def geometry(a, b):
    align = (a - b).pow(2).sum(1).mean().item()
    unif = torch.pdist(a).pow(2).mul(-2).exp().mean().log().item()
    return align, unif


def main(epochs=4, steps=45, batch=128):
    model = Encoder()
    opt = torch.optim.Adam(model.parameters(), 3e-4)
    for epoch in range(epochs):
        outputs = []
        for _ in range(steps):
            x = torch.randn(batch, 64)
            za, zb = model(x + 0.1 * torch.randn_like(x)), model(x * 1.1)
            loss = nt_xent(za, zb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            outputs.append((loss.item(), *geometry(za, zb)))
        print(epoch, [round(sum(c) / steps, 3) for c in zip(*outputs)])


torch.manual_seed(121)
torch.set_num_threads(1)
main()
