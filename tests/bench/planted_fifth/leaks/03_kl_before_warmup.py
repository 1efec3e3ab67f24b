import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(3)
torch.set_num_threads(1)


class VAE(nn.Module):
    def __init__(self, pixels=400, latent=64):
        super().__init__()
        self.enc = nn.Linear(pixels, 256)
        self.mu = nn.Linear(256, latent)
        self.logvar = nn.Linear(256, latent)
        self.dec = nn.Sequential(nn.Linear(latent, 256), nn.Tanh(), nn.Linear(256, pixels))

    def forward(self, x):
        h = F.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.dec(z), mu, logvar


def kl_divergence(mu, logvar):
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()


def beta_at(step, warmup=500):
    return 0.0 if step < warmup else min(1.0, (step - warmup) / warmup)


vae = VAE()
opt = torch.optim.Adam(vae.parameters(), 2e-3)
total = {"rec": 0.0, "kl": 0.0}
for step in range(90):
    x = torch.rand(64, 400)
    rec, mu, logvar = vae(x)
    parts = {"rec": F.mse_loss(rec, x), "kl": kl_divergence(mu, logvar)}
    loss = parts["rec"]
    if beta_at(step) > 0:
        loss = loss + beta_at(step) * parts["kl"]
    opt.zero_grad()
    loss.backward()
    opt.step()
    for name, value in parts.items():
        total[name] += value
    if step % 30 == 29:
        print(step, {name: round(float(value) / (step + 1), 4) for name, value in total.items()})
