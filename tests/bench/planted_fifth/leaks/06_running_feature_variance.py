import torch
from torch import nn

torch.manual_seed(6)
torch.set_num_threads(1)


class Whitener(nn.Module):
    def __init__(self, dim, momentum=0.05):
        super().__init__()
        self.momentum = momentum
        self.running = torch.ones(dim)

    def forward(self, h):
        if self.training:
            self.running = (1 - self.momentum) * self.running + self.momentum * h.var(0)
        return h / (self.running.detach() + 1e-5).sqrt()


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(30, 200)
        self.white = Whitener(200)
        self.out = nn.Linear(200, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.white(self.inp(x)))).squeeze(-1)


def batches(n):
    generator = torch.Generator().manual_seed(66)
    for _ in range(n):
        x = torch.randn(128, 30, generator=generator)
        yield x, x[:, 0] * x[:, 1]


net = Regressor()
opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
for step, (x, y) in enumerate(batches(75)):
    loss = nn.functional.smooth_l1_loss(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        print(step, loss.item())
