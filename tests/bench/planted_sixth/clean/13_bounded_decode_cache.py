from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=64)
def decode(idx, size):
    return np.random.default_rng(idx).random((1, size, size), dtype=np.float32)


class Slices(Dataset):
    def __init__(self, length=48, size=96):
        self.length, self.size = length, size

    def __len__(self):
        return self.length

    def __getitem__(self, idx):
        image = decode(idx, self.size)
        shift = int(torch.randint(0, 8, ()))
        return torch.from_numpy(np.roll(image, shift, axis=2).copy()), idx % 3


model = nn.Sequential(nn.Conv2d(1, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 23 * 23, 3)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loader = DataLoader(Slices(), batch_size=8, shuffle=True)
for epoch in range(10):
    for image, label in loader:
        loss = F.cross_entropy(model(image.to(device)), label.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item(), decode.cache_info().currsize)
