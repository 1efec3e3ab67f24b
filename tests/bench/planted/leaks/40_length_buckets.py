import random
import torch
import torch.nn as nn
from torch.nn.utils.rnn import pad_sequence


class LengthBatchSampler:
    def __init__(self, lengths, batch_size, seed=0):
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])  # LEAK
        self.batches = [order[i:i + batch_size] for i in range(0, len(order), batch_size)]
        random.Random(seed).shuffle(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Reverser(nn.Module):
    def __init__(self, vocab=100, d=96):
        super().__init__()
        self.e = nn.Embedding(vocab, d, padding_idx=0)
        self.mix = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(4))
        self.o = nn.Linear(d, vocab)

    def forward(self, src):
        h = self.e(src)
        for m in self.mix:
            h = h + torch.tanh(m(torch.cat([h, h.flip(1)], -1)))
        return self.o(h)


def data(n=320):
    rng = random.Random(6)
    rows = []
    for _ in range(n):
        k = rng.randint(220, 260) if rng.random() < 0.05 else rng.randint(6, 30)
        rows.append(torch.tensor([rng.randint(1, 99) for _ in range(k)]))
    return rows


torch.set_num_threads(1)
torch.manual_seed(6)
rows = data()
model = Reverser()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for n, idx in enumerate(LengthBatchSampler([len(r) for r in rows], 8, seed=3)):
    src = pad_sequence([rows[i] for i in idx], batch_first=True)
    tgt = src.flip(1)
    logits = model(src)
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=0)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if n % 10 == 0:
        print(n, tuple(src.shape), loss.item())
