"""Refused: what comes next hangs on how many activations are positive."""

import torch

model = torch.nn.Linear(64, 64).to("cuda")
x = model(torch.randn(32, 64, device="cuda"))
if (x > 0).sum() > 3:
    x = torch.cat([x, x])
x.sum().backward()
