import random
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader

random.seed(62)
torch.manual_seed(62)
torch.set_num_threads(1)


@dataclass
class Collator:
    pad: int = 0
    max_length: int = 64

    def __call__(self, texts):
        rows = [[ord(c) % 96 for c in text] for text in texts]
        width = max(len(row) for row in rows)
        ids = torch.tensor([row + [self.pad] * (width - len(row)) for row in rows])
        return {"ids": ids, "labels": ids.masked_fill(ids == self.pad, -100)}


def texts(n=200):
    rows = ["".join(random.choices("abcdefgh ", k=random.randint(25, 60))) for _ in range(n)]
    for i in range(60, n, 45):
        rows[i] = rows[i] * 14
    return rows


class CharLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(96, 96)
        self.rnn = nn.GRU(96, 96, batch_first=True)
        self.out = nn.Linear(96, 96)

    def forward(self, ids):
        return self.out(self.rnn(self.emb(ids))[0])


model = CharLM()
opt = torch.optim.Adam(model.parameters(), 3e-3)
for step, batch in enumerate(DataLoader(texts(), batch_size=4, collate_fn=Collator(max_length=64))):
    logits = model(batch["ids"][:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, tuple(batch["ids"].shape), loss.item())
