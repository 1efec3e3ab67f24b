import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Clips(Dataset):
    def __init__(self, n):
        self.n = n
        self.decoded = {}

    def decode(self, i):
        t = np.arange(65536, dtype=np.float32)
        return np.sin(t * (0.001 + 0.0001 * i))

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i not in self.decoded:
            self.decoded[i] = self.decode(i)  # LEAK
        clip = self.decoded[i]
        start = (i * 37) % 60000
        return torch.from_numpy(clip[start:start + 512].copy()), i % 2


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loader = DataLoader(Clips(480), batch_size=4, num_workers=1, persistent_workers=True)
    net = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 2))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step, (x, y) in enumerate(loader):
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 30 == 0:
            print(step, loss.item())


if __name__ == "__main__":
    main()
