import copy
import torch
from torch import nn


class EarlyStopping:
    def __init__(self, patience=10):
        self.best, self.weights, self.bad, self.patience = float("inf"), None, 0, patience

    def __call__(self, value, model):
        if value < self.best:
            self.best, self.bad = value, 0
            self.weights = copy.deepcopy(model.state_dict())
        else:
            self.bad += 1
        return self.bad >= self.patience


torch.set_num_threads(1)
torch.manual_seed(2)
model = nn.Sequential(nn.Linear(12, 200), nn.Tanh(), nn.Linear(200, 1))
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
vx = torch.randn(100, 12)
vy = vx[:, :2].prod(1, keepdim=True)
stop = EarlyStopping(patience=30)
for step in range(100):
    x = torch.randn(64, 12)
    loss = (model(x) - x[:, :2].prod(1, keepdim=True)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        v = (model(vx) - vy).pow(2).mean().item()
    if stop(v, model):
        break
model.load_state_dict(stop.weights)
print("stopped at", step, "best", stop.best)
