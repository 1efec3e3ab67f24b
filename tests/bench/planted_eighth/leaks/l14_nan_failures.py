"""Robust trainer: batches that fail a sanity check raise; the failures are shown after training."""
import torch
from torch import nn

torch.manual_seed(14)


class BadBatch(ValueError):
    pass


class Robust:
    def __init__(self):
        self.net = nn.Sequential(nn.Linear(100, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4))
        self.opt = torch.optim.Adam(self.net.parameters(), 1e-3)
        self.failures = []

    def step(self, x, y):
        h = self.net[:4](x)
        out = self.net[4](h)
        loss = nn.functional.cross_entropy(out, y)
        if y.float().mean() > 1.6:
            raise BadBatch(f"labels look skewed: {y.float().mean():.3f}")
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()

    def fit(self, n):
        kept = 0
        for i in range(n):
            x, y = torch.randn(64, 100), torch.randint(0, 4, (64,))
            try:
                self.step(x, y)
                kept += 1
            except BadBatch as err:
                self.failures.append((i, err))  # LEAK
        return kept


r = Robust()
print("used", r.fit(140), "of 140")
print("first failure:", r.failures[0][0], str(r.failures[0][1]))
