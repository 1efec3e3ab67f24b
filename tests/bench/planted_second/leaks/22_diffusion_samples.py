import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
T = 12
betas = torch.linspace(1e-4, 0.2, T)
abar = torch.cumprod(1 - betas, 0)


class Denoiser(nn.Module):
    def __init__(self, dim=64, width=128):
        super().__init__()
        self.time = nn.Embedding(T, width)
        self.inp = nn.Linear(dim, width)
        self.mid = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, dim))

    def forward(self, x, t):
        return self.mid(self.inp(x) + self.time(t))


net = Denoiser()
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
gallery = []


def sample(n):
    net.eval()
    x = torch.randn(n, 64)
    for t in reversed(range(T)):
        tt = torch.full((n,), t, dtype=torch.long)
        eps = net(x, tt)
        x = (x - betas[t] / (1 - abar[t]).sqrt() * eps) / (1 - betas[t]).sqrt()
        if t:
            x = x + betas[t].sqrt() * torch.randn_like(x)
    net.train()
    return x


for step in range(120):
    x0 = torch.randn(32, 64) * 0.3 + 1.0
    t = torch.randint(0, T, (32,))
    noise = torch.randn_like(x0)
    a = abar[t][:, None]
    loss = nn.functional.mse_loss(net(a.sqrt() * x0 + (1 - a).sqrt() * noise, t), noise)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 4 == 0:
        gallery.append(sample(8))  # LEAK
    if step % 40 == 0:
        print(step, loss.item(), "sample mean", gallery[-1].mean().item())
