import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(103)
torch.set_num_threads(1)


class VAE(nn.Module):
    def __init__(self, pixels=400, latent=64):
        super().__init__()
        self.enc, self.mu = nn.Linear(pixels, 256), nn.Linear(256, latent)
        self.logvar, self.dec = nn.Linear(256, latent), nn.Linear(latent, pixels)

    def forward(self, x):
        h = F.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        return self.dec(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


vae = VAE()
opt = torch.optim.Adam(vae.parameters(), 2e-3)
log = []
for step in range(90):
    x = torch.rand(64, 400)
    rec, mu, logvar = vae(x)
    kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
    mse = F.mse_loss(rec, x)
    loss = mse + min(1.0, step / 40) * 1e-4 * kl
    opt.zero_grad()
    loss.backward()
    opt.step()
    log.append((mse.item(), kl.item()))
    if step % 30 == 29:
        print(step, log[-1])
