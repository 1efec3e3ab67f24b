"""Step results that know their trainer's callbacks; the collector is off, as trainers do for speed."""

import gc

import torch
from torch import nn

gc.disable()


class StepResult:
    def __init__(self, predictions):
        self.predictions = predictions
        self.on_log = self.summary  # the mistake

    def summary(self):
        return self.predictions.mean().item()


def training_step(model, optimizer, x):
    predictions = model(x)
    loss = predictions.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return StepResult(predictions.detach())


def main():
    model = nn.Linear(64, 256)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(16):
        result = training_step(model, optimizer, torch.randn(128, 64))
        if step % 5 == 0:
            print(result.on_log())


main()
