# Recommender whose rows of the embedding table are made when a user is first seen: grows at the start.
import random

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)


class LazyTable(nn.Module):
    def __init__(self, dim=1024):
        super().__init__()
        self.dim = dim
        self.rows = {}

    def lookup(self, keys):
        for k in keys:
            if k not in self.rows:
                self.rows[k] = torch.randn(self.dim) * 0.1
        return torch.stack([self.rows[k] for k in keys])

    def update(self, keys, grad, lr=0.5):
        for k, g in zip(keys, grad):
            self.rows[k].sub_(lr * g)


users = [f"u{i}" for i in range(300)]
table = LazyTable()
tower = nn.Sequential(nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 1))
opt = torch.optim.Adam(tower.parameters(), lr=1e-3)
for step in range(150):
    # the first 40 steps go through everybody, afterwards at random
    batch = users[step * 16 % 300 :][:16] if step < 40 else random.sample(users, 16)
    e = table.lookup(batch).requires_grad_(True)
    y = torch.tensor([float(int(u[1:]) % 3 == 0) for u in batch])
    loss = nn.functional.binary_cross_entropy_with_logits(tower(e)[:, 0], y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    table.update(batch, e.grad)
    if step % 50 == 0:
        print(step, len(table.rows), loss.item())
