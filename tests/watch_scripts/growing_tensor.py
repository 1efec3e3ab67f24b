"""The history of all embeddings, in one tensor."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 64))
opt = torch.optim.Adam(model.parameters())
history = torch.empty(0, 64)
for _ in range(18):
    x = torch.randn(256, 32)
    z = model(x)
    loss = (z.T @ z - torch.eye(64)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    history = torch.cat([history, z.detach()])  # the mistake
print(history.shape)
