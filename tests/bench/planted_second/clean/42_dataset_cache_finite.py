import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)


class CachedSpectrograms(Dataset):
    """Every clip is decoded once: the cache is complete after the first epoch."""

    def __init__(self, n=48):
        self.n, self.cache = n, {}

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i not in self.cache:
            rng = np.random.default_rng(i)
            wave = np.sin(np.arange(8192) * (0.01 + 0.0005 * i)) + 0.1 * rng.standard_normal(8192)
            self.cache[i] = np.abs(np.fft.rfft(wave.reshape(32, 256), axis=1)).astype(np.float32)
        return torch.from_numpy(self.cache[i] + np.float32(0.01) * np.random.rand(32, 129).astype(np.float32)), i % 4


np.random.seed(0)
data = CachedSpectrograms()
net = nn.Sequential(nn.Flatten(), nn.Linear(32 * 129, 32), nn.ReLU(), nn.Linear(32, 4))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(14):
    for x, y in DataLoader(data, batch_size=8, shuffle=True):
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item(), len(data.cache))
