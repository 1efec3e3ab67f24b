"""Sentences of all lengths, the longest ones late."""

import random

import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.head = nn.Linear(32, 12)

    def forward(self, ids):
        return self.head(self.layer(self.embed(ids)))


def main():
    torch.manual_seed(0)
    rng = random.Random(0)
    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters())
    lengths = [rng.randint(20, 150) for _ in range(26)] + [160, 180, 200, 240]
    for length in lengths:
        ids = torch.randint(100, (4, length))
        logits = model(ids)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten() % 12)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


main()
