import random

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

random.seed(20)
torch.manual_seed(20)
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
            chosen = buffer[random.randrange(len(buffer))]
            buffer.append(row)
            yield chosen


def spectra(n=2600):
    for i in range(n):
        signal = torch.randn(512)
        signal += torch.sin(torch.arange(512) * (0.05 + 0.2 * (i % 4)))
        yield signal, i % 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 16, 9, stride=4)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x[:, None])).amax(-1))


net = Net()
opt = torch.optim.Adam(net.parameters(), 5e-3)
loader = DataLoader(Shuffled(spectra), batch_size=20)
for step, (x, y) in enumerate(loader):
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 40 == 0:
        print(step, loss.item())
