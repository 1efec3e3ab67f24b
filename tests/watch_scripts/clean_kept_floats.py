"""Curves of plain numbers, and the losses themselves, which are numbers too once they were propagated back."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
optimizer = torch.optim.Adam(model.parameters())
curve, losses, norms = [], [], {}
for step in range(40):
    x = torch.randn(128, 16)
    loss = (model(x).squeeze(-1) - x.sum(-1)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    norms[step] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    curve.append(loss.item())
    losses.append(loss)
print(sum(curve) / len(curve), sum(losses).item())
