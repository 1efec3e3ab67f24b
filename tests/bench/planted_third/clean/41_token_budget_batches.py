import random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

random.seed(141)
torch.manual_seed(141)
torch.set_num_threads(1)


class TokenSampler(Sampler):
    def __init__(self, lengths, cap):
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        self.batches, now = [], []
        for i in order:
            if now and (len(now) + 1) * lengths[i] > cap:
                self.batches.append(now)
                now = []
            now.append(i)
        self.batches.append(now)

    def __iter__(self):
        yield from random.sample(self.batches, len(self.batches))

    def __len__(self):
        return len(self.batches)


lengths = [random.randint(15, 60) for _ in range(120)]
for i in range(0, 120, 15):
    lengths[i] = random.randint(270, 300)
rows = [torch.randint(1, 100, (n,)) for n in lengths]
loader = DataLoader(rows, batch_sampler=TokenSampler(lengths, 512), collate_fn=lambda b: pad_sequence(b, batch_first=True))


class LM(nn.Module):
    def __init__(self, d=64):
        super().__init__()
        self.e = nn.Embedding(100, d)
        self.f = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.o = nn.Linear(d, 100)

    def forward(self, x):
        h = self.e(x).cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        return self.o(h + self.f(h))


lm = LM()
opt = torch.optim.Adam(lm.parameters(), 1e-3)
for epoch in range(2):
    for ids in loader:
        loss = nn.functional.cross_entropy(lm(ids[:, :-1]).transpose(1, 2), ids[:, 1:], ignore_index=0)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item(), len(loader))
