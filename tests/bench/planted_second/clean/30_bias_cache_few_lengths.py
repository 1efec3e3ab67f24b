import functools
import random

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)

BUCKETS = (16, 32, 48, 64)


@functools.cache
def alibi(length, heads):
    pos = torch.arange(length)
    slopes = 2.0 ** -torch.arange(1, heads + 1).float()
    return -(pos[None] - pos[:, None]).abs().float()[None] * slopes[:, None, None]


class Layer(nn.Module):
    def __init__(self, d=32, h=4):
        super().__init__()
        self.h = h
        self.qkv, self.o = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.h, d // self.h).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=alibi(n, self.h))
        return x + self.o(y.transpose(1, 2).reshape(b, n, d))


emb, layers, head = nn.Embedding(50, 32), nn.Sequential(Layer(), Layer()), nn.Linear(32, 50)
opt = torch.optim.Adam([*emb.parameters(), *layers.parameters(), *head.parameters()], lr=1e-3)
for step in range(120):
    length = random.randint(9, 64)
    padded = next(b for b in BUCKETS if b >= length)
    ids = torch.zeros(8, padded, dtype=torch.long)
    ids[:, :length] = torch.randint(1, 50, (8, length))
    loss = nn.functional.cross_entropy(head(layers(emb(ids))).flatten(0, 1), ids.flatten(), ignore_index=0)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        print(step, padded, loss.item(), alibi.cache_info().currsize)
