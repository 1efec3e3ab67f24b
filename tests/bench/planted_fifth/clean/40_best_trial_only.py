import random

import torch
from torch import nn

random.seed(140)
torch.manual_seed(140)
torch.set_num_threads(1)


def data(n):
    x = torch.randn(n, 32)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def run_trial(lr, steps=12):
    model = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    for _ in range(steps):
        x, y = data(64)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x, y = data(200)
        return (model(x).argmax(1) == y).float().mean().item(), model


scores, best = [], (0.0, None)
for i in range(14):
    score, model = run_trial(10 ** random.uniform(-4, -2))
    scores.append(score)
    if score > best[0]:
        best = (score, model)
    del model
    print(i, round(score, 3), "best", round(best[0], 3))
