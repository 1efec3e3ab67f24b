"""Masks are cached for every length that comes along."""

import random

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.proj = nn.Linear(width, width)
        self.masks = {}

    def mask(self, length):
        if length not in self.masks:
            self.masks[length] = torch.ones(length, length).tril().log()  # the mistake
        return self.masks[length]

    def forward(self, ids):
        x = self.embed(ids)
        scores = x @ x.transpose(1, 2) + self.mask(ids.shape[1])
        return self.proj(scores.softmax(-1) @ x)


def main():
    torch.manual_seed(0)
    rng = random.Random(3)
    model = Block()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(40):
        ids = torch.randint(50, (1, 16 * rng.randint(8, 20)))
        model(ids).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


main()
