"""Five-fold cross-validation; keeps a report of each fold, not the models."""
import torch
from torch import nn

torch.manual_seed(19)
X = torch.randn(500, 100)
Y = (X[:, 0] * X[:, 1] > 0).long()


class Fold:
    def __init__(self, k):
        self.k = k
        self.net = nn.Sequential(nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 2))
        self.opt = torch.optim.Adam(self.net.parameters(), 1e-3)
        self.hold = torch.arange(500) % 5 == k

    def run(self):
        x, y = X[~self.hold], Y[~self.hold]
        for _ in range(3):
            for i in torch.randperm(400).split(50):
                loss = nn.functional.cross_entropy(self.net(x[i]), y[i])
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()
        with torch.no_grad():
            return self.net(X[self.hold]).softmax(1)


oof = torch.zeros(500, 2)
for k in range(5):
    fold = Fold(k)
    oof[fold.hold] = fold.run()
    print(k, f"{(oof[fold.hold].argmax(1) == Y[fold.hold]).float().mean():.3f}")
