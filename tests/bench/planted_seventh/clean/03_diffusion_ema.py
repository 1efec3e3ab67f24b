"""Diffusion training with an averaged copy of the weights and sampling from it."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class EpsNet(nn.Module):
    def __init__(self, ch=24):
        super().__init__()
        self.time = nn.Linear(1, ch)
        self.inp = nn.Conv2d(1, ch, 3, padding=1)
        self.mid = nn.Conv2d(ch, ch, 3, padding=1)
        self.out = nn.Conv2d(ch, 1, 3, padding=1)

    def forward(self, x, t):
        h = F.silu(self.inp(x) + self.time(t[:, None])[:, :, None, None])
        return self.out(F.silu(self.mid(h)) + h)


class EMA:
    def __init__(self, model, decay=0.99):
        self.shadow = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for s, p in zip(self.shadow.parameters(), model.parameters(), strict=True):
            s.mul_(self.decay).add_(p, alpha=1 - self.decay)


@torch.no_grad()
def sample(net, abar, n=4):
    x = torch.randn(n, 1, 16, 16, device=device)
    for i in reversed(range(0, len(abar), 10)):
        t = torch.full((n,), i / len(abar), device=device)
        eps = net(x, t)
        x0 = (x - (1 - abar[i]).sqrt() * eps) / abar[i].sqrt()
        prev = abar[max(i - 10, 0)]
        x = prev.sqrt() * x0.clamp(-1, 1) + (1 - prev).sqrt() * eps
    return x


torch.manual_seed(0)
abar = (1 - torch.linspace(1e-4, 0.03, 100, device=device)).cumprod(0)
net = EpsNet().to(device)
ema = EMA(net)
opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
losses = []
for step in range(48):
    x0 = torch.rand(8, 1, 16, 16, device=device) * 2 - 1
    t = torch.randint(100, (8,), device=device)
    a = abar[t][:, None, None, None]
    eps = torch.randn_like(x0)
    loss = F.mse_loss(net(a.sqrt() * x0 + (1 - a).sqrt() * eps, t / 100), eps)
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema.update(net)
    losses.append(loss.item())
    if step % 12 == 11:
        print(f"step {step} loss {sum(losses[-12:]) / 12:.4f} sample std {sample(ema.shadow, abar).std().item():.3f}")
