import torch
from torch import nn


def gradient_penalty(critic, real, fake):
    a = torch.rand(len(real), 1)
    x = (a * real + (1 - a) * fake).requires_grad_(True)
    g, = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return ((g.norm(2, 1) - 1) ** 2).mean()


class Gan:
    def __init__(self, z=8, d=32):
        self.z = z
        self.g = nn.Sequential(nn.Linear(z, 96), nn.ReLU(), nn.Linear(96, d))
        self.c = nn.Sequential(nn.Linear(d, 96), nn.Softplus(), nn.Linear(96, 1))
        self.og = torch.optim.Adam(self.g.parameters(), 1e-4, betas=(0.0, 0.9))
        self.oc = torch.optim.Adam(self.c.parameters(), 1e-4, betas=(0.0, 0.9))
        self.gp_values = []

    def critic_step(self, real):
        with torch.no_grad():
            fake = self.g(torch.randn(len(real), self.z))
        gp = gradient_penalty(self.c, real, fake)
        loss = self.c(fake).mean() - self.c(real).mean() + 10 * gp
        self.oc.zero_grad()
        loss.backward()
        self.oc.step()
        self.gp_values.append(gp.item())

    def gen_step(self, n):
        loss = -self.c(self.g(torch.randn(n, self.z))).mean()
        self.og.zero_grad()
        loss.backward()
        self.og.step()


torch.set_num_threads(1)
torch.manual_seed(22)
gan = Gan()
for i in range(60):
    gan.critic_step(torch.randn(24, 32).abs())
    if i % 3 == 2:
        gan.gen_step(24)
print(gan.gp_values[0], gan.gp_values[-1])
