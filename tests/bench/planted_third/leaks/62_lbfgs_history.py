import torch
from torch import nn

torch.manual_seed(62)
torch.set_num_threads(1)


class PINN(nn.Module):
    """u'' + pi^2 sin(pi x) = 0 on [0, 1], u(0) = u(1) = 0."""

    def __init__(self, width=160):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.net(x) * x * (1 - x)


def residual(model, x):
    u = model(x)
    (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
    return ddu + torch.pi**2 * torch.sin(torch.pi * x)


def solve(iterations=110, points=64):
    model = PINN()
    x = torch.linspace(0, 1, points)[:, None].requires_grad_()
    opt = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=1)
    losses = []

    def closure():
        opt.zero_grad()
        loss = residual(model, x).pow(2).mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    for it in range(iterations):
        opt.step(closure)
        if it % 30 == 0:
            print(it, losses[-1])
    return model


solve()
