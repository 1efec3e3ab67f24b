"""Host memory: NumPy copies of predictions."""

import numpy as np
import torch
from torch import nn


class Logger:
    def __init__(self):
        self.pictures = {}

    def log(self, step, loss):
        self.pictures[step] = np.full((512, 512), loss)  # the mistake


torch.manual_seed(0)
model = nn.Linear(16, 4)
opt = torch.optim.SGD(model.parameters(), 0.01)
logger = Logger()
for step in range(60):
    loss = model(torch.randn(8, 16)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    logger.log(step, loss.item())
