from copy import deepcopy

import torch
from torch import nn

torch.manual_seed(57)
torch.set_num_threads(1)


class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.bad = patience, 0
        self.best = float("inf")
        self.states = []

    def __call__(self, value, model):
        if value < self.best:
            self.best, self.bad = value, 0
            self.states.append(deepcopy(model.state_dict()))
        else:
            self.bad += 1
        return self.bad >= self.patience

    def restore(self, model):
        model.load_state_dict(self.states[-1])


class Forecaster(nn.Module):
    def __init__(self, lags=48, horizon=12):
        super().__init__()
        self.lags, self.horizon = lags, horizon
        self.net = nn.Sequential(nn.Linear(lags, 360), nn.ReLU(), nn.Linear(360, 360), nn.ReLU(), nn.Linear(360, horizon))

    def forward(self, x):
        return self.net(x)


def windows(n, model):
    start = torch.rand(n, 1) * 50
    t = start + torch.arange(model.lags + model.horizon) * 0.3
    s = torch.sin(t) + 0.5 * torch.sin(2.3 * t)
    return s[:, : model.lags], s[:, model.lags :]


model = Forecaster()
opt = torch.optim.Adam(model.parameters(), 1e-4)
stop = EarlyStopping(patience=8)
val = windows(300, model)
for epoch in range(40):
    for _ in range(6):
        x, y = windows(64, model)
        loss = nn.functional.l1_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        value = nn.functional.l1_loss(model(val[0]), val[1]).item()
    if stop(value, model):
        break
    if epoch % 10 == 0:
        print(epoch, value)
stop.restore(model)
print("best", stop.best)
