import torch
from torch import nn

torch.manual_seed(107)
torch.set_num_threads(1)


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, 96), nn.LeakyReLU(0.2), nn.Linear(96, 96), nn.LeakyReLU(0.2), nn.Linear(96, o))


gen, critic = mlp(16, 2), mlp(2, 1)
g_opt = torch.optim.Adam(gen.parameters(), 1e-3)
c_opt = torch.optim.Adam(critic.parameters(), 1e-3)
curve = []
for it in range(80):
    angle = 6.283 * torch.rand(64, 1)
    real = torch.cat([angle.cos(), angle.sin()], 1)
    fake = gen(torch.randn(64, 16)).detach()
    c_loss = nn.functional.softplus(critic(fake)).mean() + nn.functional.softplus(-critic(real)).mean()
    c_opt.zero_grad()
    c_loss.backward()
    c_opt.step()
    g_loss = nn.functional.softplus(-critic(gen(torch.randn(64, 16)))).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    with torch.no_grad():
        curve.append(critic(gen(torch.randn(64, 16))).mean())
    if it % 20 == 19:
        print(it, c_loss.item(), torch.stack(curve[-20:]).mean().item())
