"""What the model says of the same sample is kept after each step, to be drawn at the end."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 512))
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
sample = torch.randn(32, 32)
drawn = {"step": [], "output": []}

for step in range(30):
    loss = model(torch.randn(64, 32)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        drawn["step"].append(step)
        drawn["output"].append(model(sample))  # the mistake
