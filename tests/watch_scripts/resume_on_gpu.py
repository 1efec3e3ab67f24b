"""A run goes on from its checkpoint, which stays where it was loaded."""

import os
import tempfile

import torch
from torch import nn


def build():
    model = nn.Sequential(nn.Linear(128, 768), nn.ReLU(), nn.Linear(768, 128))
    return model, torch.optim.AdamW(model.parameters())


def train(model, optimizer, steps):
    for _ in range(steps):
        x = torch.randn(8, 128)
        loss = (model(x) - x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


torch.manual_seed(0)
path = os.path.join(tempfile.mkdtemp(), "checkpoint.pt")
model, optimizer = build()
train(model, optimizer, 4)
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
del model, optimizer

checkpoint = torch.load(path)  # the mistake
model, optimizer = build()
model.load_state_dict(checkpoint["model"])
optimizer.load_state_dict(checkpoint["optimizer"])
print(train(model, optimizer, 8))
