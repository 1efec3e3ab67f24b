"""Own loop; the validation adds up losses with their graphs, and a report object keeps the sum of each epoch."""
import torch
from torch import nn


class Epoch:
    def __init__(self, index):
        self.index, self.train, self.valid = index, 0.0, 0

    def __str__(self):
        return f"#{self.index} train {self.train:.4f} valid {float(self.valid):.4f}"


class Loop:
    def __init__(self):
        torch.manual_seed(26)
        self.net = nn.Sequential(nn.Linear(80, 240), nn.SiLU(), nn.Linear(240, 240), nn.SiLU(), nn.Linear(240, 8))
        self.opt = torch.optim.Adam(self.net.parameters(), 1e-3)
        self.book = []
        self.x, self.y = torch.randn(1024, 80), torch.randint(0, 8, (1024,))

    def batches(self, lo, hi):
        for i in range(lo, hi, 64):
            yield self.x[i:i + 64], self.y[i:i + 64]

    def loss(self, b):
        return nn.functional.cross_entropy(self.net(b[0]), b[1])

    def train(self, ep):
        self.net.train()
        for b in self.batches(0, 640):
            l = self.loss(b)
            self.opt.zero_grad()
            l.backward()
            self.opt.step()
            ep.train += l.item() / 10

    def validate(self, ep):
        self.net.eval()
        for b in self.batches(640, 1024):
            ep.valid = ep.valid + self.loss(b) / 6  # LEAK

    def run(self, n):
        for k in range(n):
            ep = Epoch(k)
            self.train(ep)
            self.validate(ep)
            self.book.append(ep)  # LEAK
            print(ep)


Loop().run(14)
