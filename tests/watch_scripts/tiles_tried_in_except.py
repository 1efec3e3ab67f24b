"""A segmentation that does not fit is done in tiles, inside the `except` block that still holds the first try."""

import torch
from torch import nn


class Segmenter(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(6))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, picture):
        maps = [picture]
        for stage in self.stages:
            maps.append(stage(maps[-1]).sigmoid())
        return self.head(maps[-1])


def train_on(model, picture):
    model(picture).square().mean().backward()


torch.manual_seed(0)
model = Segmenter()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for number in range(16):
    picture = torch.rand(1, 3, 64, 256 if number == 12 else 64)
    optimizer.zero_grad()
    try:
        train_on(model, picture)
    except RuntimeError:
        for tile in picture.split(64, dim=3):
            train_on(model, tile)  # the mistake
    optimizer.step()
