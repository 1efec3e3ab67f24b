import functools

import torch
from torch import nn

torch.manual_seed(141)
torch.set_num_threads(1)


class Kernel(nn.Module):
    def __init__(self, dim, inducing=96):
        super().__init__()
        self.points = nn.Parameter(torch.randn(inducing, dim))
        self.features = nn.Sequential(nn.Linear(dim, 192), nn.Tanh(), nn.Linear(192, dim))
        self.weight = nn.Linear(inducing, 1)

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def scale(dim, n):
        return (dim * n) ** 0.5

    def forward(self, x):
        d = torch.cdist(self.features(x), self.points)
        return self.weight((-8 * d / self.scale(x.shape[1], len(x))).exp()).squeeze(1)


x = torch.randn(240, 40)
y = x[:, 0].sin() + x[:, 1]
for fold in range(12):
    held = torch.arange(240) % 12 == fold
    model = Kernel(40)
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(6):
        loss = nn.functional.mse_loss(model(x[~held]), y[~held])
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(fold, loss.item())
