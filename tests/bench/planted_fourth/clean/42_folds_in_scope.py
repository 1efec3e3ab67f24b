import torch
from torch import nn

torch.manual_seed(142)
torch.set_num_threads(1)


class Booster(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 1))

    def fit(self, x, y, epochs=4):
        opt = torch.optim.Adam(self.parameters(), 1e-3)
        for _ in range(epochs):
            for idx in torch.randperm(len(x)).split(80):
                loss = (self.net(x[idx]).squeeze(1) - y[idx]).pow(2).mean()
                opt.zero_grad()
                loss.backward()
                opt.step()
        return self

    @torch.no_grad()
    def predict(self, x):
        return self.net(x).squeeze(1)


def cross_validate(x, y, k):
    out_of_fold = torch.zeros_like(y)
    folds = torch.randperm(len(x)).chunk(k)
    for i, held in enumerate(folds):
        rest = torch.cat(folds[:i] + folds[i + 1 :])
        out_of_fold[held] = Booster(x.size(1)).fit(x[rest], y[rest]).predict(x[held])
    return (out_of_fold - y).pow(2).mean().item()


x = torch.randn(400, 18)
y = x[:, 0] * x[:, 1]
scores = [cross_validate(x, y, 4) for _ in range(4)]
print([round(s, 3) for s in scores])
