from copy import deepcopy

import torch
from torch import nn

torch.manual_seed(107)
torch.set_num_threads(1)


class EarlyStopping:
    def __init__(self, patience=8):
        self.patience, self.bad, self.best, self.state = patience, 0, float("inf"), None

    def __call__(self, value, model):
        if value < self.best:
            self.best, self.bad, self.state = value, 0, deepcopy(model.state_dict())
        else:
            self.bad += 1
        return self.bad >= self.patience


def windows(n):
    t = torch.rand(n, 1) * 50 + torch.arange(60) * 0.3
    s = torch.sin(t) + 0.5 * torch.sin(2.3 * t)
    return s[:, :48], s[:, 48:]


model = nn.Sequential(nn.Linear(48, 360), nn.ReLU(), nn.Linear(360, 360), nn.ReLU(), nn.Linear(360, 12))
opt = torch.optim.Adam(model.parameters(), 1e-4)
stop, val, curve = EarlyStopping(), windows(300), []
for epoch in range(40):
    for _ in range(5):
        x, y = windows(64)
        loss = nn.functional.l1_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        curve.append(nn.functional.l1_loss(model(val[0]), val[1]).item())
    if stop(curve[-1], model):
        break
model.load_state_dict(stop.state)
print(len(curve), stop.best)
