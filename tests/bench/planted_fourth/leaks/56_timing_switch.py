import time

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(65)
torch.set_num_threads(1)


class Mixer(nn.Module):
    def __init__(self, d=64, tokens=64):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.tokens = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
        self.channels = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        x = x + self.tokens(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.n2(x))


class Net(nn.Module):
    def __init__(self, depth=6):
        super().__init__()
        self.patch = nn.Conv2d(3, 64, 4, stride=4)
        self.blocks = nn.ModuleList(Mixer() for _ in range(depth))
        self.head = nn.Linear(64, 10)
        self.recompute = True

    def forward(self, img):
        x = self.patch(img).flatten(2).transpose(1, 2)
        for b in self.blocks:
            x = checkpoint(b, x, use_reentrant=False) if self.recompute else b(x)
        return self.head(x.mean(1))


def seconds_per_step(net, step, n=3):
    net.recompute = False
    t0 = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - t0) / n


def main():
    net = Net()
    opt = torch.optim.SGD(net.parameters(), 0.05)

    def step(n=12):
        y = torch.randint(10, (n,))
        x = torch.randn(n, 3, 32, 32) + y.view(-1, 1, 1, 1) * 0.2
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.item()

    for i in range(30):
        value = step()
        if i == 12:
            quick = seconds_per_step(net, lambda: step(2))
            print("without recomputation", quick > 0)
        if i % 10 == 0:
            print(i, value)


main()
