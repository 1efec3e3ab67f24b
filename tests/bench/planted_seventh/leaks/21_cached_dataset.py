"""Image classification whose dataset keeps decoded pictures so that they need not be decoded again."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class CachedImages(Dataset):
    def __init__(self, n=96, size=96, classes=5, train=True):
        self.n, self.size, self.classes, self.train = n, size, classes, train
        self.rng = np.random.default_rng(0)
        self.cache = {}

    def __len__(self):
        return self.n

    def decode(self, index):
        rng = np.random.default_rng(index)
        image = rng.random((3, self.size + 16, self.size + 16), dtype=np.float32)
        return image + (index % self.classes) / self.classes

    def crop(self, image, top, left):
        return np.ascontiguousarray(image[:, top : top + self.size, left : left + self.size])

    def __getitem__(self, index):
        top, left = self.rng.integers(0, 16, size=2) if self.train else (8, 8)
        key = (index, int(top), int(left))
        if key not in self.cache:
            self.cache[key] = self.crop(self.decode(index), top, left)
        return torch.from_numpy(self.cache[key]), index % self.classes


class Classifier(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.fc = nn.Linear(32, classes)

    def forward(self, x):
        return self.fc(self.net(x).flatten(1))


def main():
    torch.manual_seed(0)
    data = CachedImages()
    loader = DataLoader(data, batch_size=8, shuffle=True)
    model = Classifier().to(device)
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
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
