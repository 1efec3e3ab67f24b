"""The training runs in a thread."""

import threading

import torch
from torch import nn


def work():
    torch.manual_seed(0)
    model = nn.Linear(128, 256)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    outputs = []
    for _ in range(20):
        output = model(torch.randn(128, 128))
        optimizer.zero_grad()
        output.pow(2).mean().backward()
        optimizer.step()
        outputs.append(output.detach())  # the mistake


threading.Thread(target=work).start()
