"""An optimizer that keeps a history of its own, and losses that go to a thread which prints them."""

import queue
import threading

import torch
from torch import nn


def write():
    while (loss := losses.get()) is not None:
        print(round(float(loss), 3))


torch.manual_seed(0)
losses = queue.Queue()
thread = threading.Thread(target=write, daemon=True)
thread.start()
model = nn.Linear(64, 64)
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
for _ in range(12):
    x = torch.randn(16, 64)

    def closure(x=x):
        optimizer.zero_grad()
        loss = (model(x) - x).pow(2).mean()
        loss.backward()
        return loss

    losses.put(optimizer.step(closure).detach())
losses.put(None)
thread.join()
