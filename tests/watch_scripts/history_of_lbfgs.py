"""L-BFGS keeps two vectors as large as the model for each of its last hundred steps."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(512, 64)
inputs, targets = torch.randn(32, 512), torch.randn(32, 64).abs().sqrt()
optimizer = torch.optim.LBFGS(model.parameters(), lr=1e-3, max_iter=1)  # the mistake


def closure():
    optimizer.zero_grad()
    loss = nn.functional.smooth_l1_loss(model(inputs).tanh(), targets)
    loss.backward()
    return loss


for _ in range(60):
    optimizer.step(closure)
