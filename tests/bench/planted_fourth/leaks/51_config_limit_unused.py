import warnings
from dataclasses import dataclass

import torch
from torch import nn

torch.manual_seed(60)
torch.set_num_threads(1)
warnings.simplefilter("ignore")


@dataclass
class Config:
    vocab: int = 256
    dim: int = 64
    max_length: int = 96
    batch: int = 4
    steps: int = 45


class ByteTokenizer:
    def __init__(self, cfg):
        self.max_length = cfg.max_length

    def __call__(self, text):
        ids = list(text.encode())
        if len(ids) > self.max_length:
            warnings.warn(f"{len(ids)} tokens is longer than {self.max_length}")
        return ids


def collate(rows):
    width = max(map(len, rows))
    return torch.tensor([r + [0] * (width - len(r)) for r in rows])


def ticket(i):
    text = f"ticket {i}: printer {i % 7} does not answer, please look at it"
    if i % 97 == 96:
        text += "\n" + "\n".join(f"[{k:04d}] retry connection" for k in range(32))
    return text


class Model(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.emb = nn.Embedding(cfg.vocab, cfg.dim)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(cfg.dim, 4, 128, 0.0, batch_first=True) for _ in range(3))
        self.out = nn.Linear(cfg.dim, cfg.vocab)

    def forward(self, ids):
        h = self.emb(ids)
        for layer in self.layers:
            h = layer(h)
        return self.out(h)


cfg = Config()
tok, model = ByteTokenizer(cfg), Model(cfg)
opt = torch.optim.AdamW(model.parameters(), 1e-3)
for step in range(cfg.steps):
    ids = collate([tok(ticket(step * cfg.batch + k)) for k in range(cfg.batch)])
    noisy = torch.where(torch.rand(ids.shape) < 0.15, 1, ids)
    loss = nn.functional.cross_entropy(model(noisy).flatten(0, 1), ids.flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 15 == 0:
        print(step, tuple(ids.shape), loss.item())
