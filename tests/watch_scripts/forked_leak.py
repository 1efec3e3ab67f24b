"""The training runs in a process that the script starts."""

import multiprocessing
import sys

import torch
from torch import nn


def work(steps):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Linear(128, 256)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    outputs = []
    for _ in range(steps):
        output = model(torch.randn(128, 128))
        optimizer.zero_grad()
        output.pow(2).mean().backward()
        optimizer.step()
        outputs.append(output.detach())  # the mistake


if __name__ == "__main__":
    method = sys.argv[1] if len(sys.argv) > 1 else "fork"
    process = multiprocessing.get_context(method).Process(target=work, args=(20,))
    process.start()
    process.join()
