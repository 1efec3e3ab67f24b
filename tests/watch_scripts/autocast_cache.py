"""One autocast context around the whole run, and new weights all the time."""

import torch
from torch import nn

torch.manual_seed(0)


def main():
    trunk = nn.Linear(64, 64)
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the mistake
        for _ in range(16):
            probe = nn.Linear(64, 512)
            x = torch.randn(16, 64)
            loss = probe(trunk(x)).float().pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


main()
