"""Refused: training ends early by the loss, which has no value."""

import torch

model = torch.nn.Linear(64, 1).cuda()
optimizer = torch.optim.Adam(model.parameters())
for _ in range(20):
    loss = model(torch.randn(32, 64, device="cuda")).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if loss.item() < 0.01:
        break
