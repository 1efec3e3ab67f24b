"""resume: an object keeps the checkpoint dict; same process trains and saves first."""

import os
import tempfile

import torch
from torch import nn


class Experiment:
    def __init__(self, path=None):
        self.net = nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 128))
        self.opt = torch.optim.AdamW(self.net.parameters())
        if path:
            self.restored = torch.load(path)  # the mistake
            self.net.load_state_dict(self.restored["net"])
            self.opt.load_state_dict(self.restored["opt"])

    def fit(self, n):
        for _ in range(n):
            loss = self.net(torch.randn(16, 128)).pow(2).mean()
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()


torch.manual_seed(0)
path = os.path.join(tempfile.mkdtemp(), "c.pt")
first = Experiment()
first.fit(3)
torch.save({"net": first.net.state_dict(), "opt": first.opt.state_dict()}, path)
del first
Experiment(path).fit(12)
