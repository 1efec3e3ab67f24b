"""After each epoch's evaluation the weights are copied into a history."""

import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.Adam(model.parameters())
history = []
for _epoch in range(8):
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(torch.randn(32, 64)), torch.randint(10, (32,)))
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        score = sum(model(torch.randn(64, 64)).mean().item() for _ in range(4))
    model.train()
    history.append((score, copy.deepcopy(model.state_dict())))  # the mistake
