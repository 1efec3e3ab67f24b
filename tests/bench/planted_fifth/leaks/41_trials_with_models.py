import random
from typing import NamedTuple

import torch
from torch import nn

random.seed(41)
torch.manual_seed(41)
torch.set_num_threads(1)


class Trial(NamedTuple):
    score: float
    settings: dict
    model: nn.Module
    optimizer: torch.optim.Optimizer


def data(n):
    x = torch.randn(n, 32)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def run_trial(lr, width, steps=12):
    model = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    for _ in range(steps):
        x, y = data(64)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x, y = data(200)
        score = (model(x).argmax(1) == y).float().mean().item()
    return Trial(score, {"lr": lr, "width": width}, model, optimizer)


trials = []
for i in range(14):
    trial = run_trial(10 ** random.uniform(-4, -2), random.choice([96, 128, 160]))
    trials.append(trial)
    best = max(trials, key=lambda t: t.score)
    print(i, round(trial.score, 3), "best", round(best.score, 3), best.settings)
