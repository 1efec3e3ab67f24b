"""8 KiB a step, in a dictionary."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(64, 32)
opt = torch.optim.SGD(model.parameters(), 0.01)
seen = {}
for step in range(30):
    out = model(torch.randn(64, 64))
    loss = out.pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    seen[step] = out.detach().clone()  # the mistake
