import random
import traceback

import torch
import torch.nn.functional as F
from torch import nn


class SkipLog(dict):
    def note(self, step, err):
        self.setdefault(type(err).__name__, []).append((step, err))

    def report(self):
        for kind, items in self.items():
            step, err = items[-1]
            print(kind, len(items), "last at", step)
            print("".join(traceback.format_exception_only(type(err), err)).strip())


class Parser(nn.Module):
    def __init__(self, vocab=90, dim=64):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.rnn = nn.LSTM(dim, dim, batch_first=True)
        self.arc = nn.Bilinear(dim, dim, 1)

    def forward(self, ids, heads):
        h, _ = self.rnn(self.emb(ids))
        n = ids.shape[1]
        left = h.unsqueeze(2).expand(-1, n, n, -1).contiguous()
        right = h.unsqueeze(1).expand(-1, n, n, -1).contiguous()
        scores = self.arc(left, right).squeeze(-1)
        if int(heads.max()) >= n:
            raise IndexError(f"head {int(heads.max())} in a sentence of {n} words")
        return F.cross_entropy(scores.transpose(1, 2), heads)


def main():
    random.seed(45)
    torch.manual_seed(45)
    torch.set_num_threads(1)
    model, log = Parser(), SkipLog()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(60):
        n = random.randint(10, 14)
        ids = torch.randint(0, 90, (4, n))
        heads = torch.randint(0, n + (1 if random.random() < 0.5 else 0), (4, n))
        try:
            loss = model(ids, heads)
        except IndexError as err:
            log.note(step, err)
            continue
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 20 == 0:
            print(step, loss.item())
    log.report()


main()
