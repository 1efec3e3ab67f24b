import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

G = nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 64)).to(device)
D = nn.Sequential(nn.Linear(64, 96), nn.LeakyReLU(0.2), nn.Linear(96, 1)).to(device)
opt_g = torch.optim.Adam(G.parameters(), lr=1e-4, betas=(0.0, 0.9))
opt_d = torch.optim.Adam(D.parameters(), lr=1e-4, betas=(0.0, 0.9))
history = {"d": [], "gp": [], "g": []}


def gradient_penalty(real, fake):
    eps = torch.rand(real.size(0), 1, device=device)
    mixed = (eps * real + (1 - eps) * fake).requires_grad_(True)
    score = D(mixed)
    grad = torch.autograd.grad(score, mixed, torch.ones_like(score), create_graph=True, retain_graph=True)[0]
    return ((grad.norm(2, dim=1) - 1) ** 2).mean()


for it in range(100):
    for _ in range(2):
        real = torch.randn(48, 64, device=device) + 1
        fake = G(torch.randn(48, 16, device=device)).detach()
        gp = gradient_penalty(real, fake)
        d_loss = D(fake).mean() - D(real).mean() + 10 * gp
        opt_d.zero_grad()
        d_loss.backward()
        opt_d.step()
    g_loss = -D(G(torch.randn(48, 16, device=device))).mean()
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
    for k, v in zip(history, (d_loss, gp, g_loss)):
        history[k].append(v.item())
    if it % 25 == 0:
        print(it, {k: round(v[-1], 4) for k, v in history.items()})
