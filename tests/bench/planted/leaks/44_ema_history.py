import copy
import torch
from torch import nn


class EMA:
    def __init__(self, model, decay=0.95, keep_every=5):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.keep_every = decay, keep_every
        self.n = 0
        self.checkpoints = []

    @torch.no_grad()
    def update(self, model):
        self.n += 1
        for a, b in zip(self.model.parameters(), model.parameters()):
            a.lerp_(b, 1 - self.decay)
        if self.n % self.keep_every == 0:
            self.checkpoints.append(copy.deepcopy(self.model.state_dict()))  # LEAK


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(144, 256), nn.ReLU(), nn.Linear(256, 32))
        self.dec = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 144))

    def forward(self, x):
        mu, lv = self.enc(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        kl = -0.5 * (1 + lv - mu.pow(2) - lv.exp()).sum(-1).mean()
        return self.dec(z), kl


torch.set_num_threads(1)
torch.manual_seed(19)
vae = VAE()
ema = EMA(vae)
opt = torch.optim.Adam(vae.parameters(), lr=1e-3)
for step in range(100):
    x = torch.rand(32, 144)
    rec, kl = vae(x)
    loss = (rec - x).pow(2).sum(-1).mean() + 0.1 * kl
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema.update(vae)
    if step % 25 == 0:
        print(step, loss.item(), ema.n)
