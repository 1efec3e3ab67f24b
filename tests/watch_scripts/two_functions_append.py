"""Two functions extend one global list: one with numbers, the other with features."""

import torch
from torch import nn

torch.manual_seed(0)
events = []


def log_numbers(step, loss):
    events.append((step, loss.item()))
    events.append(("lr", 0.1))


def features(model, x):
    with torch.no_grad():
        return model[:2](x)


def log_features(hidden):
    events.extend([hidden])  # the mistake


model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
opt = torch.optim.Adam(model.parameters())
for step in range(30):
    x = torch.randn(64, 16)
    loss = model(x).logsumexp(-1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    log_numbers(step, loss)
    log_features(features(model, x))
