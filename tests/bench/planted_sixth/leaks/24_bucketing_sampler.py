import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SpectrogramDataset(Dataset):
    def __init__(self, n=240):
        self.lengths = [random.randint(40, 120) for _ in range(n)]
        for i in range(0, n, 20):
            self.lengths[i] = random.randint(500, 600)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        return torch.randn(self.lengths[i], 32), random.randrange(10)


class BucketingSampler(Sampler):
    """Batches utterances of similar length, as in curriculum recipes."""

    def __init__(self, lengths, batch_size):
        ids = sorted(range(len(lengths)), key=lengths.__getitem__)
        self.bins = [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]

    def __iter__(self):
        random.shuffle(self.bins)
        yield from self.bins

    def __len__(self):
        return len(self.bins)


def collate(batch):
    frames = torch.cat([x for x, _ in batch])
    owner = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor([len(x) for x, _ in batch]))
    return frames, owner, torch.tensor([y for _, y in batch])


class FrameEncoder(nn.Module):
    """Works on the concatenated frames of a batch, nothing is padded."""

    def __init__(self, dim=96, depth=4, classes=10):
        super().__init__()
        self.inp = nn.Linear(32, dim)
        self.layers = nn.ModuleList([nn.Linear(dim, dim) for _ in range(depth)])
        self.head = nn.Linear(dim, classes)

    def forward(self, frames, owner, size):
        h = self.inp(frames)
        for layer in self.layers:
            h = h + torch.relu(layer(h))
        pooled = torch.zeros(size, h.shape[1], device=h.device).index_add(0, owner, h)
        return self.head(pooled / torch.bincount(owner, minlength=size)[:, None])


def main(epochs=2, batch_size=12):
    dataset = SpectrogramDataset()
    loader = DataLoader(dataset, batch_sampler=BucketingSampler(dataset.lengths, batch_size), collate_fn=collate)
    model = FrameEncoder().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        total = 0.0
        for frames, owner, labels in loader:
            logits = model(frames.to(device), owner.to(device), len(labels))
            loss = F.cross_entropy(logits, labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch} loss {total / len(loader):.4f}")


if __name__ == "__main__":
    main()
