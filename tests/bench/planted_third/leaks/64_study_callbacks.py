import functools
import random
from dataclasses import dataclass
from typing import Callable

import torch
from torch import nn

random.seed(64)
torch.manual_seed(64)
torch.set_num_threads(1)


@dataclass
class Trial:
    number: int
    params: dict
    value: float
    rerun: Callable


class Study:
    def __init__(self, objective):
        self.objective, self.trials = objective, []

    def optimize(self, n):
        for i in range(n):
            params = {"lr": 10 ** random.uniform(-4, -2), "hidden": random.choice([128, 192, 256])}
            value, rerun = self.objective(params)
            self.trials.append(Trial(i, params, value, rerun))
            print(i, params["hidden"], round(value, 4))

    @property
    def best(self):
        return min(self.trials, key=lambda t: t.value)


class Forecaster(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.rnn = nn.LSTM(4, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 4)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


def train(model, opt, steps):
    for _ in range(steps):
        x = torch.randn(8, 12, 4).cumsum(1) * 0.1
        loss = (model(x[:, :-1]) - x[:, 1:]).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


def objective(params):
    model = Forecaster(params["hidden"])
    opt = torch.optim.Adam(model.parameters(), lr=params["lr"])
    value = train(model, opt, 8)
    return value, functools.partial(train, model, opt)


study = Study(objective)
study.optimize(14)
print("best", study.best.params, study.best.rerun(4))
