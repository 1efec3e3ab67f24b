"""Physics-informed network fitted with L-BFGS, which keeps a short history of updates."""

import torch
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Field(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.net.append(nn.Linear(width, 1))

    def forward(self, t):
        return self.net(t)


def residual(field, t):
    """u'' + u = 0"""
    t = t.requires_grad_(True)
    u = field(t)
    (du,) = torch.autograd.grad(u.sum(), t, create_graph=True)
    (ddu,) = torch.autograd.grad(du.sum(), t, create_graph=True)
    return (ddu + u).pow(2).mean()


def main(steps=40):
    torch.manual_seed(0)
    field = Field().to(device)
    opt = torch.optim.LBFGS(field.parameters(), lr=0.5, max_iter=2, history_size=6, line_search_fn=None)
    start = torch.zeros(1, 1, device=device)
    points = torch.linspace(0, 3, 128, device=device)[:, None]

    def closure():
        opt.zero_grad()
        loss = residual(field, points.clone()) + (field(start) - 1).pow(2).mean()
        loss.backward()
        return loss

    curve = []
    for step in range(steps):
        curve.append(float(opt.step(closure)))
        if step % 10 == 0:
            print(f"step {step} loss {curve[-1]:.5f}")
    print(f"final {curve[-1]:.6f}")


if __name__ == "__main__":
    main()
