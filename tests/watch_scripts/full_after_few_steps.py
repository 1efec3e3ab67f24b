"""Scores of every batch for a plot at the end; the card is full after a handful of steps."""

import torch
from torch import nn

model = nn.Sequential(nn.Linear(128, 512), nn.Tanh(), nn.Linear(512, 1024))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for_the_plot = {"scores": [], "losses": []}


def train_on(x):
    scores = model(x)
    loss = scores.logsumexp(-1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for_the_plot["losses"].append(loss.item())
    for_the_plot["scores"].append(scores.detach())  # the mistake


for _ in range(40):
    train_on(torch.randn(1024, 128))
