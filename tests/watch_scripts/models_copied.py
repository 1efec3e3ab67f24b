"""Whole models are copied after each epoch's evaluation."""

import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.Adam(model.parameters())
ensemble = []
for _epoch in range(8):
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(torch.randn(32, 64)), torch.randint(10, (32,)))
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        score = sum(model(torch.randn(64, 64)).mean().item() for _ in range(4))
    ensemble.append(copy.deepcopy(model))  # the mistake
    model.train()
