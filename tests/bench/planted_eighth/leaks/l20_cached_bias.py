"""Relative position bias is expensive, so it is cached - by a key that is never the same twice."""
import functools
import torch
from torch import nn
import torch.nn.functional as F


@functools.lru_cache(maxsize=None)
def decay_bias(length: int, slope: float) -> torch.Tensor:
    pos = torch.arange(length)
    return -(pos[:, None] - pos[None]).abs() * slope  # LEAK


class Block(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(d, d) for _ in range(3))
        self.slope = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        bias = decay_bias(x.size(1), self.slope.item())  # LEAK
        return x + F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), attn_mask=bias) * self.slope.exp()


torch.manual_seed(20)
net = nn.Sequential(Block(), Block(), nn.Linear(48, 48))
opt = torch.optim.Adam(net.parameters(), 2e-3)
for step in range(60):
    x = torch.randn(4, 160, 48)
    loss = F.smooth_l1_loss(net(x), x.cumsum(1) / 10)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 15 == 14:
        print(step + 1, f"{loss.item():.4f}")
