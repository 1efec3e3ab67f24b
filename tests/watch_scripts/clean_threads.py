"""One thread makes batches, another one trains on them."""

import queue
import threading

import torch
from torch import nn

batches = queue.Queue(2)


def produce():
    for _ in range(20):
        batches.put(torch.randn(64, 128))
    batches.put(None)


def train():
    model = nn.Linear(128, 256)
    optimizer = torch.optim.Adam(model.parameters())
    while (batch := batches.get()) is not None:
        optimizer.zero_grad()
        model(batch).pow(2).mean().backward()
        optimizer.step()


threads = [threading.Thread(target=produce), threading.Thread(target=train)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
