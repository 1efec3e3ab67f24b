"""A dataset that caches what it decoded - by index AND augmentation seed, so that it never hits; workers persist."""
import random
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Decoded(Dataset):
    def __init__(self, n):
        self.n, self.memo = n, {}

    def __len__(self):
        return self.n

    def _decode(self, i, flip):
        g = torch.Generator().manual_seed(i)
        pic = torch.rand(3, 96, 96, generator=g)
        return pic.flip(-1) if flip > 0.5 else pic

    def __getitem__(self, i):
        flip = random.random()
        key = (i, flip)
        if key not in self.memo:
            self.memo[key] = self._decode(i, flip)  # LEAK
        return self.memo[key][:, ::4, ::4], i % 3


def main():
    torch.manual_seed(23)
    random.seed(23)
    dl = DataLoader(Decoded(240), batch_size=12, num_workers=2, persistent_workers=True)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.SGD(net.parameters(), 0.05)
    for epoch in range(8):
        for x, y in dl:
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        print("epoch", epoch, "finished")


if __name__ == "__main__":
    main()
