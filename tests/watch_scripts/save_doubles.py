"""Checkpoints are averaged from copies on the device."""

import os
import tempfile

import torch
from torch import nn

torch.manual_seed(0)


def save_checkpoint(model, optimizer, path):
    state = {name: value.clone() for name, value in model.state_dict().items()}  # the mistake
    torch.save({"model": state, "optimizer": optimizer.state_dict()}, path)


def main():
    model = nn.Sequential(nn.Linear(128, 1024), nn.ReLU(), nn.Linear(1024, 128))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(2):
            for _ in range(4):
                x = torch.randn(8, 128)
                loss = (model(x) - x).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            save_checkpoint(model, optimizer, os.path.join(folder, f"{epoch}.pt"))


main()
