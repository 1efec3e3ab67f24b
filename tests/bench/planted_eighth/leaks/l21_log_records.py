"""Logs through `logging`; a memory handler keeps the records until somebody asks for them (nobody does)."""
import logging
import numpy as np
import torch
from torch import nn


class Recent(logging.Handler):
    """Like pytest's caplog."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = []

    def emit(self, record):
        self.records.append(record)  # LEAK


log = logging.getLogger("train")
log.setLevel(logging.DEBUG)
log.propagate = False
recent = Recent()
log.addHandler(recent)

torch.manual_seed(21)
np.random.seed(21)
net = nn.Linear(256, 10)
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(140):
    raw = np.random.rand(600, 256)
    log.debug("batch %d: %s", step, raw)  # LEAK
    x = torch.from_numpy(raw.astype(np.float32))
    y = (x.sum(1) * 10).long() % 10
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 35 == 34:
        print(step + 1, f"{loss.item():.4f}")
