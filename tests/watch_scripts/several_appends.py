"""A log to which several lines add; one of them a tensor."""

import torch
from torch import nn

torch.manual_seed(0)


class Run:
    def __init__(self):
        self.model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 128))
        self.opt = torch.optim.SGD(self.model.parameters(), 0.01)
        self.log = {"loss": [], "norm": [], "out": []}

    def step(self):
        out = self.model(torch.randn(64, 32))
        loss = out.pow(2).mean()
        self.opt.zero_grad()
        loss.backward()
        self.log["loss"].append(float(loss))
        self.log["norm"].append(sum(p.grad.norm().item() for p in self.model.parameters()))
        self.opt.step()
        sample = out.detach() * 2
        kept = sample
        self.log["out"].append(kept)  # the mistake


run = Run()
for _ in range(30):
    run.step()
