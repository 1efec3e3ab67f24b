"""Two matrices of the vocabulary's size train along: what the optimizer makes for them is too much."""

import torch
from torch import nn

torch.manual_seed(0)


def main():
    model = nn.Sequential(nn.Embedding(8000, 64), nn.Linear(64, 64), nn.Linear(64, 8000))
    optimizer = torch.optim.AdamW(model.parameters())  # the mistake
    for _ in range(3):
        model(torch.randint(0, 8000, (1, 8))).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


main()
