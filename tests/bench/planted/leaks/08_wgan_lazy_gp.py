import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
Z, B = 16, 32
G = nn.Sequential(nn.Linear(Z, 128), nn.LeakyReLU(0.2), nn.Linear(128, 64))
D = nn.Sequential(nn.Linear(64, 192), nn.LeakyReLU(0.2), nn.Linear(192, 192), nn.LeakyReLU(0.2), nn.Linear(192, 1))
opt_g = torch.optim.Adam(G.parameters(), lr=1e-4, betas=(0.5, 0.9))
opt_d = torch.optim.Adam(D.parameters(), lr=1e-4, betas=(0.5, 0.9))


def penalty(real, fake):
    eps = torch.rand(real.size(0), 1)
    mix = (eps * real + (1 - eps) * fake).requires_grad_(True)
    score = D(mix).sum()
    (grad,) = torch.autograd.grad(score, mix, create_graph=True)
    return ((grad.norm(2, dim=1) - 1) ** 2).mean()


log = {"d": [], "g": [], "gp": []}
for step in range(64):
    real = torch.randn(B, 64) * 0.3 + 1.0
    fake = G(torch.randn(B, Z)).detach()
    d_loss = D(fake).mean() - D(real).mean()
    gp = penalty(real, fake)
    log["gp"].append(gp)  # LEAK
    opt_d.zero_grad()
    if step % 4 == 0:
        (d_loss + 40.0 * gp).backward()
    else:
        d_loss.backward()
    opt_d.step()
    log["d"].append(d_loss.item())

    g_loss = -D(G(torch.randn(B, Z))).mean()
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
    log["g"].append(g_loss.item())
print(sum(log["d"]) / 64, sum(log["g"]) / 64, float(sum(log["gp"])) / 64)
