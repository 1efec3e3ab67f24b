"""Batches that do not fit are skipped, and the errors kept for the summary."""

import torch
from torch import nn

torch.manual_seed(0)


class Encoder(nn.Module):
    def __init__(self, width=64, layers=4):
        super().__init__()
        self.embed = nn.Embedding(100, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def run(lengths):
    model = Encoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    skipped = []
    for length in lengths:
        ids = torch.randint(100, (8, length))
        optimizer.zero_grad()
        try:
            loss = model(ids).mean()
            loss.backward()
        except torch.OutOfMemoryError as error:
            skipped.append(error)  # the mistake
            continue
        optimizer.step()
    print(f"{len(skipped)} batches skipped")


run([128, 128, 128, 128, 4096, 128, 128, 128, 6000, 128, 128, 128, 128, 128, 128])
