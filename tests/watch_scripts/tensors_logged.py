"""A logger that keeps what it is given, every third step."""

import torch
from torch import nn


class RunLogger:
    def __init__(self, every):
        self.every = every
        self.rows = []

    def __call__(self, step, **values):
        if step % self.every == 0:
            self.rows.append({"step": step, **values})  # the mistake


def train(steps=24):
    net = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 128))
    optimizer = torch.optim.AdamW(net.parameters())
    logger = RunLogger(every=3)
    for step in range(1, steps + 1):
        x = torch.randn(128, 16)
        predictions = net(x)
        loss = predictions.var()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        logger(step, loss=loss.item(), predictions=predictions.detach())


train()
