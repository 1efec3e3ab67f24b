import torch
from torch import nn


class SoftSignSTE(torch.autograd.Function):
    """sign in the forward pass, smooth gradient in the backward pass"""

    @staticmethod
    def forward(ctx, x, tau):
        y = torch.sign(x) * x.abs().clamp(max=1.0)
        ctx.tau = tau
        ctx.y = y  # LEAK
        return y

    @staticmethod
    def backward(ctx, g):
        return g * (1 - ctx.y.abs()) * ctx.tau + 0.05 * g, None


class BinaryMLP(nn.Module):
    def __init__(self, d_in, width, d_out):
        super().__init__()
        self.l1 = nn.Linear(d_in, width)
        self.l2 = nn.Linear(width, d_out)

    def forward(self, x):
        return self.l2(SoftSignSTE.apply(self.l1(x), 1.5))


def batches(n, bs):
    g = torch.Generator().manual_seed(13)
    for _ in range(n):
        x = torch.randn(bs, 20, generator=g)
        yield x, (x[:, 0] * x[:, 1] > 0).long()


torch.set_num_threads(1)
torch.manual_seed(13)
net = BinaryMLP(20, 200, 2)
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
lossf = nn.CrossEntropyLoss()
for i, (x, y) in enumerate(batches(100, 64)):
    opt.zero_grad()
    out = net(x)
    loss = lossf(out, y)
    loss.backward()
    opt.step()
    if i % 25 == 0:
        print(i, loss.item(), (out.argmax(1) == y).float().mean().item())
