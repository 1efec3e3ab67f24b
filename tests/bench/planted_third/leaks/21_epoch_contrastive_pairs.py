import math

import torch
from torch import nn
from torch.nn import functional as F


def augment(x):
    return x + 0.1 * torch.randn_like(x), x * (0.8 + 0.4 * torch.rand(x.shape[0], 1))


class SimCLR(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128))

    def forward(self, x):
        return F.normalize(self.f(x), dim=-1)


def nt_xent(a, b, t=0.2):
    z = torch.cat([a, b])
    sim = z @ z.t() / t
    sim.fill_diagonal_(-math.inf)
    n = a.shape[0]
    target = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
    return F.cross_entropy(sim, target)


def main(epochs=4, steps=45, batch=128):
    model = SimCLR()
    opt = torch.optim.Adam(model.parameters(), 3e-4)
    step_outputs = []
    for epoch in range(epochs):
        for _ in range(steps):
            a, b = augment(torch.randn(batch, 64))
            za, zb = model(a), model(b)
            loss = nt_xent(za, zb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step_outputs.append({"loss": loss.item(), "za": za.detach(), "zb": zb.detach()})
        align = sum((o["za"] - o["zb"]).pow(2).sum(1).mean().item() for o in step_outputs) / steps
        unif = sum(torch.pdist(o["za"]).pow(2).mul(-2).exp().mean().log().item() for o in step_outputs) / steps
        print(f"{epoch}: align {align:.3f} uniform {unif:.3f}")
        step_outputs.clear()


torch.manual_seed(0)
torch.set_num_threads(1)
main()
