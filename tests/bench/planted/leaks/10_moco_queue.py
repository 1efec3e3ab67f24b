import copy
from collections import deque
import torch
import torch.nn as nn
import torch.nn.functional as F


class Encoder(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.fc = nn.Linear(32, dim)

    def forward(self, x):
        h = F.relu(self.conv2(F.relu(self.conv(x))))
        return F.normalize(self.fc(h.mean((2, 3))), dim=1)


class MoCo(nn.Module):
    def __init__(self, size=512, m=0.99, t=0.1):
        super().__init__()
        self.q = Encoder()
        self.k = copy.deepcopy(self.q)
        self.queue = deque(maxlen=size)
        self.m, self.t = m, t

    @torch.no_grad()
    def momentum(self):
        for a, b in zip(self.q.parameters(), self.k.parameters()):
            b.mul_(self.m).add_(a, alpha=1 - self.m)

    def forward(self, v1, v2):
        q = self.q(v1)
        self.momentum()
        k = self.k(v2)
        pos = (q * k.detach()).sum(1, keepdim=True)
        if self.queue:
            bank = torch.cat(list(self.queue)).detach()
            logits = torch.cat([pos, q @ bank.t()], 1) / self.t
        else:
            logits = torch.cat([pos, q @ k.detach().t()], 1) / self.t
        self.queue.append(k)  # LEAK
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def augment(x):
    return x + 0.1 * torch.randn_like(x)


torch.set_num_threads(1)
torch.manual_seed(42)
model = MoCo()
optim = torch.optim.SGD(model.q.parameters(), lr=0.03, momentum=0.9)
for step in range(80):
    imgs = torch.rand(8, 3, 24, 24)
    loss = model(augment(imgs), augment(imgs))
    optim.zero_grad()
    loss.backward()
    optim.step()
    if step % 20 == 0:
        print(step, loss.item(), len(model.queue))
