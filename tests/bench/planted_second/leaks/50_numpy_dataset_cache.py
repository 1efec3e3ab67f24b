import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)


class Spectrograms(Dataset):
    """'Loads' a clip, makes a spectrogram. Decoding is slow, so what was made once is kept."""

    def __init__(self, n=160):
        self.n = n
        self.cache = {}
        self.epoch = 0

    def __len__(self):
        return self.n

    def _make(self, i):
        rng = np.random.default_rng(i * 1000 + self.epoch)
        wave = np.sin(np.arange(16384) * (0.01 + 0.0002 * i)) + 0.1 * rng.standard_normal(16384)
        return np.abs(np.fft.rfft(wave.reshape(64, 256), axis=1)).astype(np.float64)

    def __getitem__(self, i):
        key = f"{i}-{self.epoch}"  # other noise in each epoch
        if key not in self.cache:
            self.cache[key] = self._make(i)  # LEAK
        spec = self.cache[key]
        return torch.tensor(spec.mean(0), dtype=torch.float32), i % 4


data = Spectrograms()
net = nn.Sequential(nn.Linear(129, 64), nn.ReLU(), nn.Linear(64, 4))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(10):
    data.epoch = epoch
    for x, y in DataLoader(data, batch_size=16, shuffle=True):
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    mb = sum(v.nbytes for v in data.cache.values()) / 2**20
    print(f"epoch {epoch} loss {loss.item():.3f} cache {len(data.cache)} entries, {mb:.0f} MiB")
