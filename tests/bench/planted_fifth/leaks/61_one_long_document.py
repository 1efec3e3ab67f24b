import random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

random.seed(61)
torch.manual_seed(61)
torch.set_num_threads(1)


def corpus(n=240):
    lengths = [random.randint(30, 60) for _ in range(n)]
    lengths[205] = 900
    return [torch.randint(1, 300, (length,)) for length in lengths]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(300, 96, padding_idx=0)
        self.conv = nn.Conv1d(96, 128, 5, padding=2)
        self.out = nn.Linear(128, 12)

    def forward(self, ids):
        h = torch.relu(self.conv(self.emb(ids).transpose(1, 2)))
        return self.out(h.transpose(1, 2))


def batches(documents, size=6):
    for i in range(0, len(documents), size):
        yield pad_sequence(documents[i : i + size], batch_first=True)


net = Tagger()
opt = torch.optim.Adam(net.parameters(), 2e-3)
for step, ids in enumerate(batches(corpus())):
    logits = net(ids)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), (ids % 12).flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, tuple(ids.shape), loss.item())
