"""The fifth batch holds a text several times as long as any before, which nothing cuts."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(100, 128), nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 2))
optimizer = torch.optim.Adam(model.parameters())
for length in (60, 75, 66, 70, 600, 64, 72):
    tokens = torch.randint(1, 100, (4, length))  # the mistake
    model(tokens).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
