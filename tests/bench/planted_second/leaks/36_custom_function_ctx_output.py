import gc

import torch
from torch import nn
from torch.autograd import Function

gc.set_threshold(200_000, 50, 50)  # fewer pauses
torch.manual_seed(0)
torch.set_num_threads(1)


class Squash(Function):
    """x / sqrt(1 + x^2) with a cheap backward from the output."""

    @staticmethod
    def forward(ctx, x):
        y = x / torch.sqrt(1 + x * x)
        ctx.y = y  # LEAK
        return y

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - ctx.y * ctx.y) ** 1.5


class SquashNet(nn.Module):
    def __init__(self, d=64, h=256, depth=3, out=8):
        super().__init__()
        dims = [d] + [h] * depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims[:-1], dims[1:]))
        self.out = nn.Linear(h, out)

    def forward(self, x):
        for layer in self.layers:
            x = Squash.apply(layer(x))
        return self.out(x)


net = SquashNet()
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for step in range(100):
    x = torch.randn(64, 64)
    target = x[:, :8].cumsum(1)
    loss = nn.functional.mse_loss(net(x), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        print(step, loss.item())
