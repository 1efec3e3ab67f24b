from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence


@dataclass
class Config:
    max_length: int = 96
    batch_size: int = 8
    dim: int = 192
    alphabet: str = field(default="abcdefghijklmnopqrstuvwxyz .,!?")


class CharTokenizer:
    def __init__(self, cfg):
        self.cfg = cfg
        self.table = {c: i + 1 for i, c in enumerate(cfg.alphabet)}

    def encode(self, text):
        return torch.tensor([self.table[c] for c in text])


class Reader(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.emb = nn.Embedding(len(cfg.alphabet) + 1, cfg.dim, padding_idx=0)
        self.enc = nn.TransformerEncoderLayer(cfg.dim, 4, 2 * cfg.dim, batch_first=True, dropout=0.0)
        self.out = nn.Linear(cfg.dim, 2)

    def forward(self, ids):
        pad = ids == 0
        h = self.enc(self.emb(ids), src_key_padding_mask=pad)
        return self.out(h.masked_fill(pad[..., None], 0).sum(1) / (~pad).sum(1, keepdim=True))


def reviews(n=72):
    for i in range(n):
        text = ("good. " if i % 2 else "not my taste. ") * (6 + i % 3)
        if i in (41, 58):
            text = text + " quoted, " * 60
        yield text, i % 2


cfg = Config()
torch.manual_seed(50)
torch.set_num_threads(1)
tok, model = CharTokenizer(cfg), Reader(cfg)
opt = torch.optim.AdamW(model.parameters(), lr=3e-4)
rows = list(reviews())
for i in range(0, len(rows), cfg.batch_size):
    texts, y = zip(*rows[i : i + cfg.batch_size])
    ids = pad_sequence([tok.encode(t) for t in texts], batch_first=True)
    loss = nn.functional.cross_entropy(model(ids), torch.tensor(y))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 16 == 0:
        print(i, tuple(ids.shape), round(loss.item(), 3))
