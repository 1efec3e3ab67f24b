import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)


class Volumes(Dataset):
    """CT-like volumes; each worker keeps what it has decoded (every patch of an epoch is a new one)."""

    def __init__(self, n=64):
        self.n = n
        self.decoded = []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        rng = np.random.default_rng()
        volume = rng.standard_normal((24, 64, 64))
        self.decoded.append((i, volume))  # LEAK
        return torch.from_numpy(volume.mean(0)).float()[None], i % 2


def main():
    loader = DataLoader(Volumes(), batch_size=8, shuffle=True, num_workers=1, persistent_workers=True)
    net = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(6):
        for x, y in loader:
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        print(epoch, "done")


if __name__ == "__main__":
    main()
