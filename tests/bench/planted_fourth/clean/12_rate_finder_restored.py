import copy
import math

import torch
from torch import nn

torch.manual_seed(112)
torch.set_num_threads(1)


def batch():
    x = torch.randn(64, 50)
    return x, torch.sin(x[:, :3].sum(1, keepdim=True))


def find_rate(model, lo=1e-5, hi=1.0, steps=40):
    before = copy.deepcopy(model.state_dict())
    opt = torch.optim.SGD(model.parameters(), lo, momentum=0.9)
    curve, smooth = [], None
    for i in range(steps):
        rate = lo * (hi / lo) ** (i / steps)
        opt.param_groups[0]["lr"] = rate
        x, y = batch()
        loss = (model(x) - y).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        smooth = loss.item() if smooth is None else 0.8 * smooth + 0.2 * loss.item()
        curve.append((rate, smooth))
        if not math.isfinite(smooth) or smooth > 4 * curve[0][1]:
            break
    model.load_state_dict(before)
    return min(curve, key=lambda c: c[1])[0] / 10


model = nn.Sequential(nn.Linear(50, 220), nn.ReLU(), nn.Linear(220, 220), nn.ReLU(), nn.Linear(220, 1))
rate = find_rate(model)
opt = torch.optim.AdamW(model.parameters(), min(rate, 1e-2))
for step in range(50):
    x, y = batch()
    loss = (model(x) - y).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
print(rate, loss.item())
