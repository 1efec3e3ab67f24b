import random
import traceback

import torch
import torch.nn.functional as F
from torch import nn


class Parser(nn.Module):
    def __init__(self, vocab=90, dim=64):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.rnn = nn.LSTM(dim, dim, batch_first=True)
        self.u = nn.Linear(dim, dim)

    def forward(self, ids, heads):
        h, _ = self.rnn(self.emb(ids))
        scores = self.u(h) @ h.transpose(1, 2)
        if int(heads.max()) >= ids.shape[1]:
            raise IndexError(f"head {int(heads.max())} in a sentence of {ids.shape[1]} words")
        return F.cross_entropy(scores.transpose(1, 2), heads)


def main():
    random.seed(137)
    torch.manual_seed(137)
    torch.set_num_threads(1)
    model, log = Parser(), {}
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(120):
        n = random.randint(20, 28)
        ids = torch.randint(0, 90, (8, n))
        heads = torch.randint(0, n + (1 if random.random() < 0.5 else 0), (8, n))
        error = None
        try:
            loss = model(ids, heads)
        except IndexError as err:
            error = traceback.format_exc(limit=2)
            log.setdefault(type(err).__name__, []).append((step, error))
        if error is not None:
            continue
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 30 == 0:
            print(step, loss.item())
    for kind, items in log.items():
        print(kind, len(items), items[-1][1].strip().splitlines()[-1])


main()
