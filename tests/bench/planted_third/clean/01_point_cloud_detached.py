"""Shape completion with two heads."""
import torch
from torch import nn

torch.manual_seed(101)
torch.set_num_threads(1)


class Meters:
    def __init__(self, *names):
        self.total = dict.fromkeys(names, 0.0)
        self.count = 0

    def update(self, **values):
        self.count += 1
        for k, v in values.items():
            self.total[k] += v.detach()

    def __str__(self):
        return "  ".join(f"{k} {float(v) / self.count:.4f}" for k, v in self.total.items())


def chamfer(a, b):
    d = torch.cdist(a, b)
    return d.amin(1).mean() + d.amin(2).mean()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 128))
        self.coarse, self.fine = nn.Linear(128, 96), nn.Linear(128, 288)

    def forward(self, p):
        z = self.enc(p).amax(1)
        return self.coarse(z).view(-1, 32, 3), self.fine(z).view(-1, 96, 3)


net = Net()
opt = torch.optim.Adam(net.parameters(), 1e-3)
meters = Meters("coarse", "fine", "consistency")
for it in range(120):
    gt = torch.randn(8, 96, 3)
    coarse, fine = net(gt[:, ::3])
    a, b = chamfer(coarse, gt), chamfer(fine, gt)
    with torch.no_grad():
        c = chamfer(coarse, fine)
    opt.zero_grad()
    (a + b).backward()
    opt.step()
    meters.update(coarse=a, fine=b, consistency=c)
    if it % 40 == 0:
        print(it, meters)
