"""torchmetrics in the evaluation: called, never reset; logits as they are."""

import torch
from torch import nn
from torchmetrics import CatMetric

torch.manual_seed(0)
model = nn.Linear(32, 100)
opt = torch.optim.SGD(model.parameters(), 0.1)
scores = CatMetric()
for _epoch in range(4):
    model.train()
    for _ in range(5):
        opt.zero_grad()
        model(torch.randn(16, 32)).logsumexp(-1).mean().backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        for _ in range(5):
            logits = model(torch.randn(64, 32))
            scores.update(logits)  # the mistake
    scores.compute()
