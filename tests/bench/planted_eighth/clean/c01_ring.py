"""A bounded deque of detached codes as negatives."""
import collections
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(1)
enc = nn.Sequential(nn.Linear(96, 256), nn.ReLU(), nn.Linear(256, 128))
opt = torch.optim.SGD(enc.parameters(), 0.05)
ring = collections.deque(maxlen=40)
for it in range(120):
    x = torch.randn(64, 96)
    q, k = enc(x), enc(x + 0.1 * torch.randn_like(x))
    pool = torch.cat([*ring, k.detach()])
    loss = F.cross_entropy(q @ pool.T / 8, torch.arange(len(pool) - 64, len(pool)))
    opt.zero_grad()
    loss.backward()
    opt.step()
    ring.append(k.detach())
    if it % 30 == 29:
        print(it + 1, f"{loss.item():.4f}", len(ring))
