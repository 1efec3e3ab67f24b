from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Generator(nn.Module):
    def __init__(self, z_dim=32, ch=32):
        super().__init__()
        self.fc = nn.Linear(z_dim, ch * 8 * 8)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(ch, ch, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(ch, 3, 4, 2, 1), nn.Tanh()
        )
        self.ch = ch

    def forward(self, z):
        return self.up(self.fc(z).view(-1, self.ch, 8, 8))


class Discriminator(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, ch, 4, 2, 1), nn.Softplus(), nn.Conv2d(ch, ch * 2, 4, 2, 1), nn.Softplus(), nn.Flatten()
        )
        self.head = nn.Linear(ch * 2 * 8 * 8, 1)

    def forward(self, x):
        return self.head(self.net(x))


def r1_penalty(disc, real):
    real = real.detach().requires_grad_(True)
    (grad,) = torch.autograd.grad(disc(real).sum(), real, create_graph=True)
    return grad.pow(2).flatten(1).sum(1).mean()


def main(steps=60, batch=12, d_reg_every=4, r1_gamma=1.0):
    gen, disc = Generator().to(device), Discriminator().to(device)
    g_opt = torch.optim.Adam(gen.parameters(), lr=2e-4, betas=(0.0, 0.99))
    d_opt = torch.optim.Adam(disc.parameters(), lr=2e-4, betas=(0.0, 0.99))
    history = defaultdict(list)

    for step in range(steps):
        real = torch.rand(batch, 3, 32, 32, device=device) * 2 - 1
        with torch.no_grad():
            fake = gen(torch.randn(batch, 32, device=device))

        d_loss = F.softplus(disc(fake)).mean() + F.softplus(-disc(real)).mean()
        r1 = r1_penalty(disc, real)
        if step % d_reg_every == 0:
            d_loss = d_loss + 0.5 * r1_gamma * d_reg_every * r1
        d_opt.zero_grad()
        d_loss.backward()
        d_opt.step()

        g_loss = F.softplus(-disc(gen(torch.randn(batch, 32, device=device)))).mean()
        g_opt.zero_grad()
        g_loss.backward()
        g_opt.step()

        history["d_loss"].append(d_loss.item())
        history["g_loss"].append(g_loss.item())
        history["r1"].append(r1)

    print("r1 mean", torch.stack(history["r1"]).mean().item(), "g", history["g_loss"][-1])


if __name__ == "__main__":
    main()
