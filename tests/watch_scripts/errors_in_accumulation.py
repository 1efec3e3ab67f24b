"""Gradient accumulation that tolerates bad samples; an object collects the errors."""

import torch
from torch import nn


class Trainer:
    def __init__(self):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(32, 512), nn.Tanh(), nn.Linear(512, 8))
        self.opt = torch.optim.AdamW(self.net.parameters())
        self.failed = []

    def micro(self, x, bad):
        hidden = self.net[0](x)
        if bad:
            hidden @ x
        return self.net[2](torch.tanh(hidden)).logsumexp(-1).mean()

    def fit(self, steps):
        for step in range(steps):
            for k in range(3):
                x = torch.randn(48, 32)
                try:
                    loss = self.micro(x, k == 1)
                except RuntimeError as e:
                    self.failed.append((step, e))  # the mistake
                    continue
                loss.backward()
            self.opt.step()
            self.opt.zero_grad()


Trainer().fit(24)
