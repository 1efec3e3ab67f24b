import torch
import torch.nn as nn
import torch.nn.functional as F


class View:
    __slots__ = ("data", "twin")

    def __init__(self, data):
        self.data = data
        self.twin = None

    def pair(self, other):
        self.twin = other
        other.twin = self  # LEAK
        return self


def two_crops(n):
    base = torch.rand(n, 3, 28, 28)
    a = View(base[..., :24, :24] + 0.05 * torch.randn(n, 3, 24, 24))
    b = View(base[..., 4:, 4:] + 0.05 * torch.randn(n, 3, 24, 24))
    return a.pair(b)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 16, 5, stride=2)
        self.c2 = nn.Conv2d(16, 32, 3, stride=2)
        self.fc = nn.Linear(32, 32)

    def forward(self, x):
        x = F.relu(self.c2(F.relu(self.c1(x))))
        return F.normalize(self.fc(x.mean((2, 3))), dim=-1)


def nt_xent(a, b, temp=0.2):
    sim = a @ b.t() / temp
    lab = torch.arange(len(a))
    return (F.cross_entropy(sim, lab) + F.cross_entropy(sim.t(), lab)) / 2


torch.set_num_threads(1)
torch.manual_seed(0)
enc = Encoder()
opt = torch.optim.SGD(enc.parameters(), lr=0.05, momentum=0.9)
for step in range(90):
    v = two_crops(12)
    loss = nt_xent(enc(v.data), enc(v.twin.data))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        print(step, loss.item())
