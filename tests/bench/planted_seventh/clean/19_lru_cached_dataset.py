"""Dataset with a least-recently-used cache of decoded images."""

from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class LRU:
    def __init__(self, limit):
        self.limit = limit
        self.items = OrderedDict()

    def get(self, key, make):
        if key in self.items:
            self.items.move_to_end(key)
            return self.items[key]
        value = make(key)
        self.items[key] = value
        while len(self.items) > self.limit:
            self.items.popitem(last=False)
        return value


class Images(Dataset):
    def __init__(self, n=80, size=56):
        self.n, self.size = n, size
        self.cache = LRU(limit=32)

    def __len__(self):
        return self.n

    def decode(self, index):
        rng = np.random.default_rng(index)
        return rng.random((3, self.size, self.size), dtype=np.float32) + (index % 5) / 5

    def __getitem__(self, index):
        return torch.from_numpy(self.cache.get(index, self.decode).copy()), index % 5


def main():
    torch.manual_seed(0)
    loader = DataLoader(Images(), batch_size=8, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Conv2d(3, 16, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5))
    model.to(device)
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(5):
        total = 0.0
        for images, labels in loader:
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item()
        print(f"epoch {epoch} loss {total / len(loader):.4f}")


if __name__ == "__main__":
    main()
