"""What failed is kept as `sys.exc_info()` has it, deep inside of calls of modules."""

import sys

import torch


class Strict(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))

    def forward(self, rows):
        hidden = self.inner(rows)
        if not torch.isfinite(hidden).all():
            raise ValueError("a row is not finite")
        return hidden


torch.manual_seed(0)
model = torch.nn.Sequential(Strict(), torch.nn.Linear(64, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
failures = []
for step in range(45):
    rows = torch.randn(64, 64)
    if step % 3 == 1:
        rows[0, 0] = float("nan")
    try:
        optimizer.zero_grad()
        model(rows).mean().backward()
        optimizer.step()
    except ValueError:
        failures.append(sys.exc_info())  # the mistake
