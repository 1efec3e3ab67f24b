import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
T = 10
beta = torch.linspace(1e-4, 0.25, T, device=device)
abar = torch.cumprod(1 - beta, 0)


class Eps(nn.Module):
    def __init__(self):
        super().__init__()
        self.t = nn.Embedding(T, 96)
        self.a, self.b = nn.Linear(48, 96), nn.Sequential(nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 48))

    def forward(self, x, t):
        return self.b(self.a(x) + self.t(t))


@torch.no_grad()
def sample(net, n):
    x = torch.randn(n, 48, device=device)
    for t in reversed(range(T)):
        e = net(x, torch.full((n,), t, device=device))
        x = (x - beta[t] / (1 - abar[t]).sqrt() * e) / (1 - beta[t]).sqrt() + (beta[t].sqrt() * torch.randn_like(x) if t else 0)
    return x


net = Eps().to(device)
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
preview = None
for step in range(140):
    x0 = 1 + 0.3 * torch.randn(32, 48, device=device)
    t = torch.randint(0, T, (32,), device=device)
    noise = torch.randn_like(x0)
    loss = (net(abar[t].sqrt()[:, None] * x0 + (1 - abar[t]).sqrt()[:, None] * noise, t) - noise).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 0:
        preview = sample(net, 16)  # the last preview only
    if step % 35 == 0:
        print(step, loss.item(), preview.mean().item())
