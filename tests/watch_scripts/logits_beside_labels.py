"""An evaluation of pictures keeps what the model returns of each point, and the labels, which are 64 bits each."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Conv2d(3, 12, 3, padding=1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def accuracy(num_batches=10):
    outputs, labels = [], []
    with torch.no_grad():
        for _ in range(num_batches):
            pictures = torch.rand(2, 3, 48, 48)
            outputs.append(model(pictures))  # the mistake
            labels.append((pictures.mean(1) * 12).long())
    return (torch.cat(outputs).argmax(1) == torch.cat(labels)).float().mean().item()


for _ in range(2):
    for _ in range(8):
        pictures = torch.rand(2, 3, 48, 48)
        loss = nn.functional.cross_entropy(model(pictures), (pictures.mean(1) * 12).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    accuracy()
