"""Gradients of four micro-batches, then a step."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ACCUMULATE = 4


def main():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 256), nn.GELU(), nn.Linear(256, 5))
    optimizer = torch.optim.AdamW(model.parameters())
    loader = DataLoader(TensorDataset(torch.randn(512, 32), torch.randint(5, (512,))), batch_size=16, shuffle=True)
    for _ in range(2):
        losses = []
        for i, (x, y) in enumerate(loader, 1):
            loss = nn.functional.cross_entropy(model(x), y) / ACCUMULATE
            loss.backward()
            losses.append(loss.detach())
            if i % ACCUMULATE == 0:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        print(torch.stack(losses).sum().item())


if __name__ == "__main__":
    main()
