"""Errors of all kinds: one caught, with its text shown, and one that ends the script."""

import traceback

import torch


class Broken(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, inputs):
        return self.layer(inputs)


model = Broken()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for size in (4, 5):
    try:
        model(torch.ones(1, size)).sum().backward()
        optimizer.step()
    except RuntimeError as error:
        print(type(error).__name__, error)
        print([frame.name for frame in traceback.extract_tb(error.__traceback__) if __file__ in frame.filename])
try:
    torch.ones(2, 3) @ torch.ones(2, 3)
except RuntimeError as error:
    raise ValueError("nothing fits") from error
