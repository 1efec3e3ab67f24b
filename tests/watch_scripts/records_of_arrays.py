"""A table for each sample of each epoch has a number and a row of features."""

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(640, 32), torch.randint(4, (640,))
features, head = nn.Sequential(nn.Linear(32, 512), nn.ReLU()), nn.Linear(512, 4)
optimizer = torch.optim.SGD([*features.parameters(), *head.parameters()], lr=0.1)
table = {}
for epoch in range(12):
    for rows in torch.randperm(640).split(64):
        hidden = features(x[rows])
        each = nn.functional.cross_entropy(head(hidden), y[rows], reduction="none")
        optimizer.zero_grad()
        each.mean().backward()
        optimizer.step()
        for row, loss, array in zip(rows.tolist(), each.tolist(), hidden.detach().numpy(), strict=True):
            table[epoch, row] = (loss, np.array(array))  # the mistake
