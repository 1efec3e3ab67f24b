from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


@lru_cache(maxsize=8)
def decode(group):
    t = np.arange(4096, dtype=np.float32)
    return np.sin(t * (0.01 + 0.003 * group))


class Clips(Dataset):
    def __len__(self):
        return 120

    def __getitem__(self, i):
        g = i % 6
        rng = np.random.default_rng(i)
        return torch.from_numpy(decode(g) + 0.1 * rng.normal(size=4096).astype(np.float32)), g


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 8, 64, stride=32), nn.Linear(8, 6)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x[:, None])).amax(-1))


def main():
    torch.manual_seed(133)
    torch.set_num_threads(1)
    loader = DataLoader(Clips(), batch_size=8, num_workers=1, persistent_workers=True)
    net = Net()
    opt = torch.optim.SGD(net.parameters(), 0.05)
    for epoch in range(5):
        for wave, label in loader:
            loss = nn.functional.cross_entropy(net(wave), label)
            opt.zero_grad()
            loss.backward()
            opt.step()
        print(epoch, loss.item())


if __name__ == "__main__":
    main()
