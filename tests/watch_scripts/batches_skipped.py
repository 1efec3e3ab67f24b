"""A batch that does not fit is left out; only how many is kept."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
left_out = 0
for size in [64, 64, 4096, 64, 64, 4096, 64, 64]:
    samples = torch.randn(size, 256)
    try:
        loss = model(samples).pow(2).mean()
    except RuntimeError:  # caught here
        left_out += 1
        continue
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"{left_out} left out")
