import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

random.seed(65)
torch.manual_seed(65)
torch.set_num_threads(1)


class BucketSampler(Sampler):
    def __init__(self, lengths, batch_size):
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        self.batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def molecules(n=720):
    lengths = [max(8, int(random.lognormvariate(3.2, 0.8))) for _ in range(n)]
    return [torch.randn(min(length, 260), 10) for length in lengths]


def collate(rows):
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


class DeepSet(nn.Module):
    def __init__(self):
        super().__init__()
        self.atom = nn.Sequential(nn.Linear(10, 192), nn.ReLU(), nn.Linear(192, 192), nn.ReLU())
        self.out = nn.Linear(192, 1)

    def forward(self, x):
        return self.out(self.atom(x).sum(1)).squeeze(1)


data = molecules()
loader = DataLoader(data, batch_sampler=BucketSampler([len(m) for m in data], 24), collate_fn=collate)
net = DeepSet()
opt = torch.optim.Adam(net.parameters(), 1e-4)
for step, atoms in enumerate(loader):
    loss = nn.functional.smooth_l1_loss(net(atoms), atoms[..., 0].sum(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 6 == 0:
        print(step, tuple(atoms.shape), loss.item())
