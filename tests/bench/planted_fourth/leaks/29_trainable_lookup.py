import functools

import torch
from torch import nn


@functools.lru_cache()
def trainable(model):
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


class Regressor(nn.Module):
    def __init__(self, features, width=384):
        super().__init__()
        self.frozen = nn.Linear(features, width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(torch.cos(self.frozen(x)))))


def norm(model):
    return sum(p.detach().pow(2).sum() for p in trainable(model).values()).sqrt()


def fold_indices(n, k, fold):
    chunk = torch.arange(n).chunk(k)
    return torch.cat([c for i, c in enumerate(chunk) if i != fold]), chunk[fold]


def run_fold(x, y, train_idx, val_idx):
    model = Regressor(x.size(1))
    opt = torch.optim.Adam(trainable(model).values(), 1e-3)
    for _ in range(6):
        for idx in train_idx[torch.randperm(len(train_idx))].split(100):
            loss = (model(x[idx]) - y[idx]).pow(2).mean() + 1e-4 * norm(model)
            opt.zero_grad()
            loss.backward()
            opt.step()
    with torch.no_grad():
        return (model(x[val_idx]) - y[val_idx]).pow(2).mean().item()


torch.manual_seed(29)
torch.set_num_threads(1)
x = torch.randn(400, 18)
y = x[:, :1] * x[:, 1:2] + 0.1 * torch.randn(400, 1)
errors = []
for repeat in range(4):
    perm = torch.randperm(400)
    for fold in range(4):
        errors.append(run_fold(x[perm], y[perm], *fold_indices(400, 4, fold)))
    print(repeat, sum(errors[-4:]) / 4)
