import random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

random.seed(150)
torch.manual_seed(150)
torch.set_num_threads(1)


def corpus(n=240):
    lengths = [random.randint(30, 60) for _ in range(n)]
    lengths[205] = 620
    return [torch.randint(1, 300, (length,)) for length in lengths]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(300, 48, padding_idx=0)
        self.conv = nn.Conv1d(48, 64, 5, padding=2)
        self.out = nn.Linear(64, 12)

    def forward(self, ids):
        return self.out(torch.relu(self.conv(self.emb(ids).transpose(1, 2))).transpose(1, 2))


net, documents = Tagger(), corpus()
opt = torch.optim.Adam(net.parameters(), 2e-3)
for i in range(0, len(documents), 6):
    ids = pad_sequence([d[:64] for d in documents[i : i + 6]], batch_first=True)
    loss = nn.functional.cross_entropy(net(ids).flatten(0, 1), (ids % 12).flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 60 == 0:
        print(i, tuple(ids.shape), loss.item())
