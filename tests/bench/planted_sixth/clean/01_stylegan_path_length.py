from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

gen = nn.Sequential(nn.Linear(32, 256), nn.LeakyReLU(0.2), nn.Linear(256, 3 * 24 * 24), nn.Tanh()).to(device)
disc = nn.Sequential(nn.Linear(3 * 24 * 24, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)).to(device)
g_opt = torch.optim.Adam(gen.parameters(), lr=2e-4, betas=(0.0, 0.99))
d_opt = torch.optim.Adam(disc.parameters(), lr=2e-4, betas=(0.0, 0.99))
history = defaultdict(list)
pl_mean = torch.zeros((), device=device)


def gradient_penalty(real, fake):
    eps = torch.rand(real.size(0), 1, device=device)
    mixed = (eps * real + (1 - eps) * fake).requires_grad_(True)
    (grad,) = torch.autograd.grad(disc(mixed).sum(), mixed, create_graph=True)
    return (grad.norm(2, dim=1) - 1).pow(2).mean()


def path_length(z, decay=0.01):
    global pl_mean
    images = gen(z)
    noise = torch.randn_like(images) / images.size(1) ** 0.5
    (grad,) = torch.autograd.grad((images * noise).sum(), z, create_graph=True)
    lengths = grad.pow(2).sum(1).sqrt()
    pl_mean = pl_mean + decay * (lengths.mean().detach() - pl_mean)
    return (lengths - pl_mean).pow(2).mean()


for step in range(80):
    real = torch.rand(24, 3 * 24 * 24, device=device) * 2 - 1
    z = torch.randn(24, 32, device=device)
    fake = gen(z).detach()
    gp = gradient_penalty(real, fake)
    d_loss = disc(fake).mean() - disc(real).mean() + 10 * gp
    d_opt.zero_grad()
    d_loss.backward()
    d_opt.step()

    g_loss = -disc(gen(torch.randn(24, 32, device=device))).mean()
    if step % 4 == 0:
        pl = path_length(torch.randn(12, 32, device=device, requires_grad=True))
        g_loss = g_loss + 2.0 * pl
        history["pl"].append(pl.detach())
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    history["gp"].append(gp.detach())
    history["d_loss"].append(d_loss.detach())

print({k: torch.stack(v).mean().item() for k, v in history.items()}, F.relu(pl_mean).item())
