import copy
import torch
import torch.nn as nn
import torch.nn.functional as F


class Ema(nn.Module):
    def __init__(self, net, d=0.99):
        super().__init__()
        self.shadow = copy.deepcopy(net).eval()
        self.d = d
        for p in self.shadow.parameters():
            p.requires_grad_(False)

    @torch.no_grad()
    def update(self, net):
        msd = net.state_dict()
        for k, v in self.shadow.state_dict().items():
            if v.dtype.is_floating_point:
                v.mul_(self.d).add_(msd[k], alpha=1 - self.d)
            else:
                v.copy_(msd[k])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 24, 5, padding=2)
        self.bn = nn.BatchNorm2d(24)
        self.f = nn.Linear(24, 4)

    def forward(self, x):
        return self.f(F.relu(self.bn(self.c(x))).mean((2, 3)))


torch.set_num_threads(1)
torch.manual_seed(3)
net = Net()
ema = Ema(net)
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
for i in range(70):
    x = torch.rand(8, 1, 28, 28)
    y = torch.randint(0, 4, (8,))
    loss = F.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema.update(net)
    if i % 20 == 0:
        with torch.no_grad():
            print(i, loss.item(), (ema.shadow(x) - net(x)).abs().mean().item())
