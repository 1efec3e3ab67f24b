import functools

import torch
from torch import nn

torch.manual_seed(42)
torch.set_num_threads(1)


class Gaussian(nn.Module):
    def __init__(self, dim, inducing=96):
        super().__init__()
        self.points = nn.Parameter(torch.randn(inducing, dim))
        self.features = nn.Sequential(nn.Linear(dim, 192), nn.Tanh(), nn.Linear(192, dim))
        self.weight = nn.Linear(inducing, 1)

    @functools.lru_cache(maxsize=256)
    def scale(self, n):
        return (self.points.shape[1] * n) ** 0.5

    def forward(self, x):
        d = torch.cdist(self.features(x), self.points)
        return self.weight((-d / self.scale(len(x)) * 8).exp()).squeeze(1)


def cross_validate(x, y, folds=12, epochs=6):
    scores = []
    for fold in range(folds):
        held = torch.arange(len(x)) % folds == fold
        model = Gaussian(x.shape[1])
        opt = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(epochs):
            loss = nn.functional.mse_loss(model(x[~held]), y[~held])
            opt.zero_grad()
            loss.backward()
            opt.step()
        with torch.no_grad():
            scores.append(nn.functional.mse_loss(model(x[held]), y[held]).item())
        print(fold, round(scores[-1], 4))
    return sum(scores) / len(scores)


x = torch.randn(240, 40)
print("mean", cross_validate(x, x[:, 0].sin() + x[:, 1]))
