import torch
from torch import nn

torch.manual_seed(119)
torch.set_num_threads(1)


def mlp(i, o, h=128):
    return nn.Sequential(nn.Linear(i, h), nn.LeakyReLU(0.2), nn.Linear(h, h), nn.LeakyReLU(0.2), nn.Linear(h, o))


def penalty(critic, real, fake):
    mix = torch.rand(len(real), 1)
    x = (mix * real + (1 - mix) * fake).requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (grad.norm(dim=1) - 1).pow(2).mean()


def real_data(n):
    angle = torch.randint(8, (n,)) * 0.785
    return torch.stack([angle.cos(), angle.sin()], 1) * 2 + 0.05 * torch.randn(n, 2)


gen, critic = mlp(16, 2), mlp(2, 1)
g_opt = torch.optim.Adam(gen.parameters(), 1e-4, betas=(0.0, 0.9))
c_opt = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.0, 0.9))
gaps = []
for it in range(50):
    for _ in range(3):
        real, fake = real_data(256), gen(torch.randn(256, 16)).detach()
        gap = critic(fake).mean() - critic(real).mean()
        loss = gap + 10 * penalty(critic, real, fake)
        c_opt.zero_grad()
        loss.backward()
        c_opt.step()
    g_loss = -critic(gen(torch.randn(256, 16))).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    gaps.append(gap.item())
print(gaps[0], gaps[-1])
