import torch
from torch import nn

torch.manual_seed(7)
torch.set_num_threads(1)
Z = 16


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, 96), nn.LeakyReLU(0.2), nn.Linear(96, 96), nn.LeakyReLU(0.2), nn.Linear(96, o))


def real(n):
    angle = 6.283 * torch.rand(n, 1)
    return torch.cat([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(n, 2)


gen, critic = mlp(Z, 2), mlp(2, 1)
g_opt = torch.optim.Adam(gen.parameters(), 1e-3, betas=(0.5, 0.9))
c_opt = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.5, 0.9))
score_curve = []

for it in range(80):
    fake = gen(torch.randn(64, Z)).detach()
    c_loss = critic(fake).mean() - critic(real(64)).mean()
    c_opt.zero_grad()
    c_loss.backward()
    c_opt.step()
    for p in critic.parameters():
        p.data.clamp_(-0.05, 0.05)

    g_loss = -critic(gen(torch.randn(64, Z))).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()

    with torch.no_grad():
        probe = gen(torch.randn(64, Z))
    score_curve.append(critic(probe).mean())
    if it % 20 == 19:
        recent = torch.stack(score_curve[-20:]).mean()
        print(it, c_loss.item(), recent.item())
