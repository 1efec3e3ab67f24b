"""A penalty on the gradient is logged with the graph of its second derivative."""

import torch
from torch import nn

torch.manual_seed(0)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 128), nn.Tanh(), nn.Linear(128, 1))
        self.penalties = []

    def forward(self, x):
        return self.body(x)

    def penalty(self, x):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(self(x).sum(), x, create_graph=True)
        value = (gradient.norm(dim=1) - 1).pow(2).mean()
        self.penalties.append(value)  # the mistake
        return value


critic = Critic()
opt = torch.optim.Adam(critic.parameters())
for step in range(24):
    real, fake = torch.randn(64, 16), torch.randn(64, 16)
    loss = critic(fake).mean() - critic(real).mean()
    if step % 2 == 0:
        loss = loss + critic.penalty((real + fake) / 2)
    else:
        critic.penalty((real + fake) / 2)
    opt.zero_grad()
    loss.backward()
    opt.step()
