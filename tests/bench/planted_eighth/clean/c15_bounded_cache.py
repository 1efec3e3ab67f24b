import functools
import random
import torch
from torch import nn
import torch.nn.functional as F


@functools.lru_cache(maxsize=6)
def causal(n):
    return torch.full((n, n), float("-inf")).triu(1)


class Block(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.qkv = nn.Linear(d, 3 * d)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + F.scaled_dot_product_attention(q, k, v, attn_mask=causal(x.size(1)))


random.seed(15)
torch.manual_seed(15)
net = nn.Sequential(Block(), Block(), nn.Linear(48, 48))
opt = torch.optim.Adam(net.parameters(), 2e-3)
for step in range(80):
    x = torch.randn(4, random.randint(60, 160), 48)
    loss = F.smooth_l1_loss(net(x), x.cumsum(1) / 10)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 19:
        print(step + 1, f"{loss.item():.4f}", causal.cache_info().currsize)
