import gc

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

gc.set_threshold(200_000, 50, 50)
torch.manual_seed(40)
torch.set_num_threads(1)


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.ff = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x, info):
        def run(h):
            info["calls"] = info.get("calls", 0) + 1
            return h + self.ff(h)

        y = checkpoint(run, x, use_reentrant=True)
        info["out"] = y
        return y


class Net(nn.Module):
    def __init__(self, d=64, depth=3):
        super().__init__()
        self.inp = nn.Linear(20, d)
        self.blocks = nn.ModuleList([Block(d) for _ in range(depth)])
        self.out = nn.Linear(d, 20)

    def forward(self, x):
        h = self.inp(x)
        norms = []
        for b in self.blocks:
            info = {}
            h = b(h, info)
            norms.append(float(info["out"].norm()))
        return self.out(h), norms


net = Net()
opt = torch.optim.SGD(net.parameters(), lr=1e-2)
for step in range(80):
    x = torch.randn(16, 30, 20)
    y, norms = net(x)
    loss = (y - x).abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, round(loss.item(), 4), [round(n, 1) for n in norms])
