"""Rehearsal by reservoir sampling: fills with 50 tensors, then replaces at random."""
import random
import torch
from torch import nn

random.seed(32)
torch.manual_seed(32)


class Reservoir(list):
    def __init__(self, k):
        super().__init__()
        self.k, self.n = k, 0

    def offer(self, item):
        self.n += 1
        if len(self) < self.k:
            self.append(item)
        elif (j := random.randrange(self.n)) < self.k:
            self[j] = item


net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.SGD(net.parameters(), 0.03)
mem = Reservoir(50)
for t in range(150):
    x = torch.randn(32, 784) + t / 100
    y = x[:, :10].argmax(1)
    old = random.choice(mem) if mem else (x, y)
    loss = nn.functional.cross_entropy(net(torch.cat([x, old[0]])), torch.cat([y, old[1]]))
    opt.zero_grad()
    loss.backward()
    opt.step()
    mem.offer((x, y))
    if t % 30 == 29:
        print(t + 1, f"{loss.item():.4f}", len(mem))
