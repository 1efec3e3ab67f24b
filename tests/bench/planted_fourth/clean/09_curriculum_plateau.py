import torch
from torch import nn

torch.manual_seed(109)
torch.set_num_threads(1)

STAGES = [(16, 10), (32, 10), (64, 12), (96, 30)]


class Copier(nn.Module):
    def __init__(self, symbols=12, hidden=96):
        super().__init__()
        self.emb = nn.Embedding(symbols, 32)
        self.rnn = nn.LSTM(32, hidden, batch_first=True)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, x):
        return self.out(self.rnn(self.emb(x))[0])


def task(length, n=16, delay=3):
    x = torch.randint(12, (n, length))
    return x[:, delay:], x[:, :-delay]


def stage_iterator():
    for length, steps in STAGES:
        for _ in range(steps):
            yield length


model = Copier()
opt = torch.optim.Adam(model.parameters(), 3e-3)
for step, length in enumerate(stage_iterator()):
    x, y = task(length)
    loss = nn.functional.cross_entropy(model(x).transpose(1, 2), y)
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    if step % 15 == 0:
        print(step, length, loss.item())
