"""Population based training: the worst of four is replaced by a perturbed copy of the best after each round."""
import copy
import torch
from torch import nn


class Member:
    def __init__(self, net, lr):
        self.net, self.lr = net, lr
        self.opt = torch.optim.Adam(net.parameters(), lr)
        self.score = None

    def spawn(self):
        return Member(copy.deepcopy(self.net), self.lr * 1.2)

    def train(self, n):
        for _ in range(n):
            x = torch.randn(64, 100)
            loss = (self.net(x) - x.flip(1)).pow(2).mean()
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
        self.score = loss.item()


torch.manual_seed(37)
pop = [Member(nn.Sequential(nn.Linear(100, 300), nn.ReLU(), nn.Linear(300, 100)), lr) for lr in (1e-4, 3e-4, 1e-3, 3e-3)]
for r in range(12):
    for m in pop:
        m.train(4)
    pop.sort(key=lambda m: m.score)
    pop[-1] = pop[0].spawn()
    print(r, f"{pop[0].score:.4f}")
