import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Clips(Dataset):
    def __init__(self, n=96, frames=16384):
        self.n, self.frames = n, frames
        self.cache = {}
        self.draw = 0

    def __len__(self):
        return self.n

    def decode(self, i, shift):
        key = (i, shift)
        if key not in self.cache:
            t = np.arange(self.frames, dtype=np.float64)
            self.cache[key] = np.sin(t * (0.01 + 0.001 * (i % 7)) + shift)
        return self.cache[key]

    def __getitem__(self, i):
        self.draw += 1
        wave = self.decode(i, self.draw * 0.137)
        return torch.from_numpy(wave.astype(np.float32)), i % 7


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 64, stride=32)
        self.fc = nn.Linear(8, 7)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x[:, None])).amax(-1))


def main():
    torch.manual_seed(34)
    torch.set_num_threads(1)
    loader = DataLoader(Clips(), batch_size=8, num_workers=1, persistent_workers=True)
    net = Net()
    opt = torch.optim.SGD(net.parameters(), 0.05)
    for epoch in range(6):
        for wave, label in loader:
            loss = nn.functional.cross_entropy(net(wave), label)
            opt.zero_grad()
            loss.backward()
            opt.step()
        print(epoch, loss.item())


if __name__ == "__main__":
    main()
