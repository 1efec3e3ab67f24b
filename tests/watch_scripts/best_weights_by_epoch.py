"""A dict per epoch of state_dict clones, and the validation uses the running model."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.SGD(model.parameters(), 0.1)
best = {}
for epoch in range(9):
    for _ in range(3):
        opt.zero_grad()
        model(torch.randn(32, 64)).logsumexp(-1).mean().backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        val = model(torch.randn(512, 64)).mean().item()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    best[epoch] = (val, state)  # the mistake
    model.train()
