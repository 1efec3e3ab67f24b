import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(113)
torch.set_num_threads(1)


class CachedAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.h, self.d = heads, dim // heads
        self.qkv, self.o = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.past = None

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.h, self.d).transpose(1, 2) for z in self.qkv(x).split(c, -1))
        if self.training:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            if self.past is not None:
                k, v = torch.cat([self.past[0], k], 2), torch.cat([self.past[1], v], 2)
            self.past = (k, v)
            y = F.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.d), -1) @ v
        return self.o(y.transpose(1, 2).reshape(b, t, c))


class TinyLM(nn.Module):
    def __init__(self, vocab=120, dim=64, layers=2):
        super().__init__()
        self.emb, self.head = nn.Embedding(vocab, dim), nn.Linear(dim, vocab)
        self.att = nn.ModuleList(CachedAttention(dim, 4) for _ in range(layers))

    def forward(self, ids):
        x = self.emb(ids)
        for a in self.att:
            x = x + a(x)
        return self.head(x)

    @torch.no_grad()
    def sample(self, batch=8, length=10):
        self.eval()
        ids = torch.zeros(batch, 1, dtype=torch.long)
        for _ in range(length):
            ids = torch.cat([ids, self(ids[:, -1:])[:, -1].softmax(-1).multinomial(1)], 1)
        for a in self.att:
            a.past = None
        self.train()
        return ids


lm = TinyLM()
opt = torch.optim.AdamW(lm.parameters(), lr=1e-3)
for step in range(100):
    ids = torch.randint(0, 120, (8, 21)).sort(1).values
    loss = F.cross_entropy(lm(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 2 == 1:
        text = lm.sample()
    if step % 25 == 24:
        print(step, f"{loss.item():.3f}", text[0, :6].tolist())
