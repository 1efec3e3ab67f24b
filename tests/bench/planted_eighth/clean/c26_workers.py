"""Persistent workers with a small bounded cache each."""
from collections import OrderedDict
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Lazy(Dataset):
    def __init__(self, n, keep=16):
        self.n, self.keep, self.memo = n, keep, OrderedDict()

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i not in self.memo:
            self.memo[i] = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(i))
            while len(self.memo) > self.keep:
                self.memo.popitem(last=False)
        return self.memo[i][:, ::4, ::4], i % 3


def main():
    torch.manual_seed(26)
    dl = DataLoader(Lazy(240), batch_size=12, num_workers=2, persistent_workers=True, shuffle=True)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.SGD(net.parameters(), 0.05)
    for epoch in range(6):
        for x, y in dl:
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        print("epoch", epoch, f"{loss.item():.4f}")


if __name__ == "__main__":
    main()
