import torch
from torch import nn


class Reporter:
    """formats values lazily so that the training loop never waits"""

    def __init__(self):
        self._todo = []

    def later(self, fn):
        self._todo.append(fn)  # LEAK

    def flush(self):
        rows = [fn() for fn in self._todo]
        self._todo.clear()
        return rows


class Seq(nn.Module):
    def __init__(self, v=90, d=56):
        super().__init__()
        self.src, self.tgt = nn.Embedding(v, d), nn.Embedding(v, d)
        self.enc, self.dec = nn.GRU(d, d, batch_first=True), nn.GRU(d, d, batch_first=True)
        self.out = nn.Linear(d, v)

    def forward(self, s, t):
        _, h = self.enc(self.src(s))
        return self.out(self.dec(self.tgt(t), h)[0])


def main():
    torch.set_num_threads(1)
    torch.manual_seed(66)
    rep, net = Reporter(), Seq()
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for step in range(70):
        s = torch.randint(1, 90, (8, 14))
        t = s.flip(1)
        logits = net(s, t)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), t[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
        rep.later(lambda k=step, lg=logits, tg=t: (k, (lg[:, :-1].argmax(-1) == tg[:, 1:]).float().mean().item()))
    rows = rep.flush()
    print(rows[0], rows[-1], len(rows))


main()
