import math

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
T = 50


class Denoiser(nn.Module):
    def __init__(self, ch=24):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, ch), nn.SiLU(), nn.Linear(ch, ch))
        self.inp = nn.Conv2d(3, ch, 3, padding=1)
        self.mid = nn.Conv2d(ch, ch, 3, padding=1)
        self.out = nn.Conv2d(ch, 3, 3, padding=1)

    def forward(self, x, t):
        freqs = torch.exp(-math.log(1000) * torch.arange(8, device=x.device) / 8)
        emb = t[:, None].float() * freqs[None]
        emb = self.time(torch.cat([emb.sin(), emb.cos()], dim=1))
        h = F.silu(self.inp(x)) + emb[:, :, None, None]
        return self.out(F.silu(self.mid(h)))


class MediaLogger:
    def __init__(self, project):
        self.project = project
        self.scalars = []
        self.media = []

    def log(self, step, **values):
        self.scalars.append({"step": step, **values})

    def log_images(self, step, name, images):
        self.media.append({"step": step, "name": name, "images": images})

    def finish(self):
        print(self.project, len(self.scalars), "scalars", len(self.media), "media")


betas = torch.linspace(1e-4, 0.05, T, device=device)
alpha_bar = torch.cumprod(1 - betas, dim=0)


@torch.no_grad()
def sample(model, n, steps=4):
    x = torch.randn(n, 3, 32, 32, device=device)
    for i in torch.linspace(T - 1, 0, steps).long().tolist():
        t = torch.full((n,), i, device=device)
        eps = model(x, t)
        x0 = (x - (1 - alpha_bar[i]).sqrt() * eps) / alpha_bar[i].sqrt()
        x = alpha_bar[max(i - 12, 0)].sqrt() * x0 + (1 - alpha_bar[max(i - 12, 0)]).sqrt() * eps
    return x.clamp(-1, 1)


model = Denoiser().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
logger = MediaLogger("ddpm-tiny")

for step in range(72):
    images = torch.rand(6, 3, 32, 32, device=device) * 2 - 1
    t = torch.randint(0, T, (6,), device=device)
    noise = torch.randn_like(images)
    a = alpha_bar[t][:, None, None, None]
    loss = F.mse_loss(model(a.sqrt() * images + (1 - a).sqrt() * noise, t), noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    logger.log(step, loss=loss.item())
    if step % 4 == 3:
        logger.log_images(step, "samples", sample(model, 16))

logger.finish()
