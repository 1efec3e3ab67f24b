"""Train a small autoencoder with a consistency term; plot both losses at the end."""

import torch
from torch import nn


class AutoEncoder(nn.Module):
    def __init__(self, width=64, hidden=256):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.decode = nn.Linear(hidden, width)

    def forward(self, x):
        return self.decode(self.encode(x))


def main():
    torch.manual_seed(0)
    model = AutoEncoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    consistency_curve = []
    for _ in range(16):
        x = torch.randn(64, 64)
        out = model(x)
        loss = (out - x).pow(2).mean()
        noisy = model(x + 0.1 * torch.randn_like(x))
        consistency_curve.append((noisy - out.detach()).abs().mean())  # the mistake
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"final consistency {consistency_curve[-1].item():.3f}")


main()
