from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Utterances(Dataset):
    sample_rate = 8000

    def __init__(self, n, seconds=1.0):
        self.n, self.size = n, int(seconds * self.sample_rate)
        self.epoch = 0

    def set_epoch(self, e):
        self.epoch = e

    @lru_cache(maxsize=None)  # LEAK
    def load(self, i, epoch):
        rng = np.random.default_rng(1000 * epoch + i)
        t = np.arange(self.size) / self.sample_rate
        wav = np.sin(2 * np.pi * (200 + 10 * i) * t) + 0.1 * rng.standard_normal(self.size)
        return wav.astype(np.float32)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.from_numpy(self.load(i, self.epoch)), i % 4


net = torch.nn.Sequential(
    torch.nn.Conv1d(1, 8, 64, stride=32), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool1d(8), torch.nn.Flatten(), torch.nn.Linear(64, 4))
torch.set_num_threads(1)
torch.manual_seed(0)
ds = Utterances(32)
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(15):
    ds.set_epoch(epoch)
    for wav, y in DataLoader(ds, batch_size=4, shuffle=True):
        loss = torch.nn.functional.cross_entropy(net(wav[:, None]), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if epoch % 5 == 0:
        print(epoch, loss.item())
