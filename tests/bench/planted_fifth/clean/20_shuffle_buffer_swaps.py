import random

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

random.seed(120)
torch.manual_seed(120)
torch.set_num_threads(1)


class Shuffled(IterableDataset):
    def __init__(self, source, size=100):
        self.source, self.size = source, size

    def __iter__(self):
        buffer = []
        for row in self.source():
            if len(buffer) < self.size:
                buffer.append(row)
                continue
            place = random.randrange(self.size)
            buffer[place], row = row, buffer[place]
            yield row
        yield from buffer


def spectra(n=2000):
    for i in range(n):
        yield torch.randn(512) + torch.sin(torch.arange(512) * (0.05 + 0.2 * (i % 4))), i % 4


net = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 16, 9, stride=4), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 4))
opt = torch.optim.Adam(net.parameters(), 5e-3)
for step, (x, y) in enumerate(DataLoader(Shuffled(spectra), batch_size=20)):
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        print(step, loss.item())
