import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def memoize(fn):
    cache = {}

    @functools.wraps(fn)
    def wrapper(self, idx):
        if idx not in cache:
            cache[idx] = fn(self, idx)
        return cache[idx]

    return wrapper


class ScanDataset(Dataset):
    """Decodes one slice of a (very long) acquisition per index."""

    def __init__(self, length, size):
        self.length, self.size = length, size

    def __len__(self):
        return self.length

    def __getitem__(self, idx):
        if idx % 97 == 13:
            raise ValueError(f"slice {idx} is corrupt")
        rng = np.random.default_rng(idx)
        image = rng.standard_normal((1, self.size, self.size), dtype=np.float32)
        return image, np.int64(idx % 4)


class SafeDataset(Dataset):
    """Skips the samples that cannot be read."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    @memoize
    def __getitem__(self, idx):
        while True:
            try:
                return self.dataset[idx]
            except ValueError:
                idx = (idx + 1) % len(self.dataset)


def build_model():
    return nn.Sequential(
        nn.Conv2d(1, 8, 7, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=3), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(4),
    )  # fmt: skip


def main(max_steps=75):
    loader = DataLoader(SafeDataset(ScanDataset(1_000_000, 176)), batch_size=16)
    model = build_model().to(device)
    model(torch.zeros(1, 1, 176, 176, device=device))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step, (image, label) in enumerate(loader):
        loss = F.cross_entropy(model(image.to(device)), label.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 30 == 0:
            print(f"step {step} loss {loss.item():.4f}")
        if step + 1 == max_steps:
            break


if __name__ == "__main__":
    main()
