"""torchmetrics with a list state, updated in the training loop and never reset."""

import torch
from torch import nn
from torchmetrics import CatMetric

torch.manual_seed(0)
model = nn.Linear(32, 64)
opt = torch.optim.SGD(model.parameters(), 0.1)
scores = CatMetric()
for _step in range(30):
    out = model(torch.randn(64, 32))
    loss = out.logsumexp(-1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    scores.update(out.detach().softmax(-1))  # the mistake
