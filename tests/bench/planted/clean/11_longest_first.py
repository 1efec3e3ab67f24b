import random
import torch
import torch.nn as nn
from torch.nn.utils.rnn import pad_sequence


class Tagger(nn.Module):
    def __init__(self, v=80, d=48):
        super().__init__()
        self.e = nn.Embedding(v, d, padding_idx=0)
        self.l = nn.LSTM(d, d, batch_first=True, bidirectional=True)
        self.o = nn.Linear(2 * d, 6)

    def forward(self, x):
        return self.o(self.l(self.e(x))[0])


def make(n, rng):
    return [torch.tensor([rng.randint(1, 79) for _ in range(rng.randint(5, 40))]) for _ in range(n)]


rng = random.Random(1)
torch.set_num_threads(1)
torch.manual_seed(10)
rows = make(237, rng)
rows += [torch.tensor([rng.randint(1, 79) for _ in range(160)]) for _ in range(3)]
batches = [rows[i:i + 4] for i in range(0, len(rows), 4)]
batches.sort(key=lambda b: max(map(len, b)), reverse=True)
first, rest = batches[0], batches[1:]
rng.shuffle(rest)
net = Tagger()
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
for n, b in enumerate([first] + rest):
    x = pad_sequence(b, batch_first=True)
    loss = nn.functional.cross_entropy(net(x).transpose(1, 2), (x % 6).masked_fill(x == 0, -100))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if n % 15 == 0:
        print(n, tuple(x.shape), loss.item())
