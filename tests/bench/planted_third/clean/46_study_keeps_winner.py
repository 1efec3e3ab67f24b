import copy
import random
from dataclasses import dataclass

import torch
from torch import nn

random.seed(146)
torch.manual_seed(146)
torch.set_num_threads(1)


@dataclass
class Trial:
    number: int
    params: dict
    value: float


class Forecaster(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.rnn = nn.LSTM(4, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 4)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class Study:
    def __init__(self):
        self.trials, self.winner = [], None

    def optimize(self, objective, n):
        for i in range(n):
            params = {"lr": 10 ** random.uniform(-4, -2), "hidden": random.choice([128, 192])}
            value, weights = objective(params)
            if self.winner is None or value < self.winner[0]:
                self.winner = (value, weights)
            self.trials.append(Trial(i, params, value))
            print(i, params["hidden"], round(value, 4))


def objective(params, steps=8):
    model = Forecaster(params["hidden"])
    opt = torch.optim.Adam(model.parameters(), lr=params["lr"])
    for _ in range(steps):
        x = torch.randn(8, 12, 4).cumsum(1) * 0.1
        loss = (model(x[:, :-1]) - x[:, 1:]).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item(), copy.deepcopy(model.state_dict())


study = Study()
study.optimize(objective, 14)
print("winner", round(study.winner[0], 4))
