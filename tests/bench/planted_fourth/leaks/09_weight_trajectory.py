import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_data():
    x = torch.randn(640, 128)
    return TensorDataset(x, (x[:, :4].sum(1) > 0).long())


def snapshot(model):
    return copy.deepcopy(model.state_dict())


def distance(a, b):
    return sum((a[k] - b[k]).pow(2).sum().item() for k in a) ** 0.5


def run_epoch(model, loader, opt):
    total = 0.0
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item() * len(x)
    return total / len(loader.dataset)


def train(epochs=24):
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))
    opt = torch.optim.SGD(model.parameters(), 0.05)
    loader = DataLoader(make_data(), batch_size=64, shuffle=True)
    trajectory = [snapshot(model)]
    for epoch in range(epochs):
        mean = run_epoch(model, loader, opt)
        trajectory.append(snapshot(model))
        if epoch % 6 == 0:
            print(f"{epoch:3d} {mean:.4f} moved {distance(trajectory[0], trajectory[-1]):.3f}")
    return [distance(trajectory[-1], w) for w in trajectory]


if __name__ == "__main__":
    torch.manual_seed(2)
    torch.set_num_threads(1)
    print(len(train()))
