"""GAN with the R1 penalty taken through torch.autograd.grad."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Generator(nn.Module):
    def __init__(self, z=32, ch=16):
        super().__init__()
        self.fc = nn.Linear(z, ch * 64)
        self.conv = nn.Conv2d(ch, 3, 3, padding=1)

    def forward(self, z):
        h = F.silu(self.fc(z)).view(len(z), -1, 8, 8)
        return torch.tanh(self.conv(F.interpolate(h, scale_factor=4)))


class Discriminator(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.conv = nn.Conv2d(3, ch, 4, stride=4)
        self.fc = nn.Linear(ch * 64, 1)

    def forward(self, x):
        return self.fc(F.silu(self.conv(x)).flatten(1))


def r1_penalty(disc, real):
    real = real.detach().requires_grad_(True)
    (grad,) = torch.autograd.grad(disc(real).sum(), real, create_graph=True)
    return grad.square().flatten(1).sum(1).mean()


torch.manual_seed(0)
gen, disc = Generator().to(device), Discriminator().to(device)
opt_g = torch.optim.Adam(gen.parameters(), lr=2e-4, betas=(0.0, 0.99))
opt_d = torch.optim.Adam(disc.parameters(), lr=2e-4, betas=(0.0, 0.99))
d_avg = g_avg = 0.0
for it in range(50):
    real = torch.rand(16, 3, 32, 32, device=device) * 2 - 1
    fake = gen(torch.randn(16, 32, device=device))
    d_loss = F.softplus(disc(fake.detach())).mean() + F.softplus(-disc(real)).mean()
    if it % 4 == 0:
        d_loss = d_loss + 2.0 * r1_penalty(disc, real)
    opt_d.zero_grad()
    d_loss.backward()
    opt_d.step()
    g_loss = F.softplus(-disc(fake)).mean()
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
    d_avg = 0.9 * d_avg + 0.1 * d_loss.item()
    g_avg = 0.9 * g_avg + 0.1 * g_loss.item()
    if it % 10 == 0:
        print(f"it {it} d {d_avg:.3f} g {g_avg:.3f}")
