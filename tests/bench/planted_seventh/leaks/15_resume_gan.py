"""Resume the training of a GAN (generator, discriminator and averaged generator) from a checkpoint file."""

import os
import tempfile

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
Z, PIXELS, HIDDEN = 64, 3 * 16 * 16, 640


def build():
    gen = nn.Sequential(nn.Linear(Z, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS), nn.Tanh())
    disc = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1))
    ema = nn.Sequential(nn.Linear(Z, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS), nn.Tanh())
    ema.load_state_dict(gen.state_dict())
    gen, disc, ema = gen.to(device), disc.to(device), ema.to(device).requires_grad_(False)
    opt_g = torch.optim.Adam(gen.parameters(), lr=1e-4, betas=(0.5, 0.99))
    opt_d = torch.optim.Adam(disc.parameters(), lr=1e-4, betas=(0.5, 0.99))
    return {"g": gen, "d": disc, "g_ema": ema, "opt_g": opt_g, "opt_d": opt_d}


def train_step(parts, real):
    fake = parts["g"](torch.randn(len(real), Z, device=device))
    d_loss = F.softplus(parts["d"](fake.detach())).mean() + F.softplus(-parts["d"](real)).mean()
    parts["opt_d"].zero_grad()
    d_loss.backward()
    parts["opt_d"].step()
    g_loss = F.softplus(-parts["d"](fake)).mean()
    parts["opt_g"].zero_grad()
    g_loss.backward()
    parts["opt_g"].step()
    with torch.no_grad():
        for e, p in zip(parts["g_ema"].parameters(), parts["g"].parameters(), strict=True):
            e.lerp_(p, 0.01)
    return d_loss.item(), g_loss.item()


def batch(n=32):
    return torch.rand(n, PIXELS, device=device) * 2 - 1


def first_run(path, steps=3):
    parts = build()
    for _ in range(steps):
        train_step(parts, batch())
    torch.save({**{k: v.state_dict() for k, v in parts.items()}, "iteration": steps}, path)


if __name__ == "__main__":
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "000003.pt")
        first_run(path)
        ckpt = torch.load(path, map_location=device)

    parts = build()
    for name, part in parts.items():
        part.load_state_dict(ckpt[name])
    for it in range(ckpt["iteration"], 30):
        d_loss, g_loss = train_step(parts, batch())
        if it % 9 == 0:
            print(f"iteration {it} d {d_loss:.4f} g {g_loss:.4f}")
