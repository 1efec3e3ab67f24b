"""A model is trained, another one takes its weights, and the first goes with its optimizer."""

import torch
from torch import nn

torch.manual_seed(0)


def encoder():
    return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512))


def train(model, steps=8):
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps):
        model(torch.randn(8, 256)).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


weights = train(encoder())
model = nn.Sequential(encoder(), nn.ReLU(), nn.Linear(512, 4))
model[0].load_state_dict(weights)
del weights
train(model)
