"""A checkpoint after each epoch, the best weights kept on the host."""

import io

import torch
from torch import nn

torch.manual_seed(0)


def snapshot(model):
    return {name: value.detach().cpu() for name, value in model.state_dict().items()}


def main():
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 64))
    optimizer = torch.optim.Adam(model.parameters())
    best, best_loss = None, float("inf")
    for _ in range(5):
        for _ in range(4):
            x = torch.randn(32, 64)
            loss = (model(x) - x).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, io.BytesIO())
        if loss.item() < best_loss:
            best, best_loss = snapshot(model), loss.item()
    model.load_state_dict(best)


main()
