"""Stochastic weight averaging that keeps a clone of every epoch's parameters."""

import torch
from torch import nn


class Averager:
    def __init__(self):
        self.snapshots = {}

    def record(self, epoch, model):
        self.snapshots[epoch] = {name: p.detach().clone() for name, p in model.named_parameters()}  # the mistake


def evaluate(model):
    model.eval()
    with torch.inference_mode():
        for _ in range(3):
            model(torch.randn(32, 100)).mean().item()
    model.train()


def main():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    averager = Averager()
    for epoch in range(10):
        for _ in range(3):
            opt.zero_grad()
            model(torch.randn(32, 100)).logsumexp(-1).mean().backward()
            opt.step()
        evaluate(model)
        averager.record(epoch, model)


main()
