import torch
from torch import nn
import torch.nn.functional as F


class ResBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = nn.Conv2d(c, c, 3, padding=1)
        self.b = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return x + self.b(F.relu(self.a(x)))


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.layer1 = ResBlock(12)
        self.layer2 = ResBlock(12)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


feats = {}


def tap(name):
    feats[name] = []

    def fn(mod, inp, out):
        feats[name].append(out.detach())  # LEAK

    return fn


torch.set_num_threads(1)
torch.manual_seed(4)
net = SmallNet()
net.layer1.register_forward_hook(tap("layer1"))
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for it in range(60):
    x = torch.rand(4, 3, 20, 20)
    y = torch.randint(0, 5, (4,))
    loss = F.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 20 == 0:
        print(it, loss.item(), "layer1 rms", feats["layer1"][-1].pow(2).mean().sqrt().item())
