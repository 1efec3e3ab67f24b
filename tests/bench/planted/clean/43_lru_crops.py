from collections import OrderedDict
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class LRU(OrderedDict):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def fetch(self, key, make):
        if key in self:
            self.move_to_end(key)
            return self[key]
        self[key] = value = make(key)
        if len(self) > self.size:
            self.popitem(last=False)
        return value


class Images(Dataset):
    def __init__(self, n):
        self.n, self.cache = n, LRU(12)

    def decode(self, i):
        return np.random.default_rng(i).random((3, 64, 64), dtype=np.float32)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        img = self.cache.fetch(i, self.decode)
        r, c = torch.randint(0, 40, (2,)).tolist()
        return torch.from_numpy(img[:, r:r + 24, c:c + 24].copy()), i % 3


torch.set_num_threads(1)
torch.manual_seed(42)
net = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
ds = Images(60)
for epoch in range(8):
    for x, y in DataLoader(ds, batch_size=6, shuffle=True):
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item(), len(ds.cache))
