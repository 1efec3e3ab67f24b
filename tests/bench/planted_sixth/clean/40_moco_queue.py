import copy

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class TextEncoder(nn.Module):
    def __init__(self, vocab=1200, dim=128):
        super().__init__()
        self.embed = nn.EmbeddingBag(vocab, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, ids):
        return F.normalize(self.proj(self.embed(ids)), dim=-1)


class MomentumContrast:
    def __init__(self, limit=1024, momentum=0.99):
        self.query = TextEncoder().to(device)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.momentum = momentum
        self.limit = limit
        self.queue = torch.empty(0, 128, device=device)
        self.optimizer = torch.optim.Adam(self.query.parameters(), lr=1e-3)

    @torch.no_grad()
    def enqueue(self, keys):
        self.queue = torch.cat([self.queue, keys])[-self.limit :]

    @torch.no_grad()
    def update_key(self):
        for k, q in zip(self.key.parameters(), self.query.parameters()):
            k.lerp_(q, 1 - self.momentum)

    def step(self, ids):
        q = self.query(ids)
        with torch.no_grad():
            k = self.key(ids.flip(1))
        logits = torch.cat([(q * k).sum(-1, keepdim=True), q @ self.queue.t()], dim=1) / 0.1
        loss = F.cross_entropy(logits, torch.zeros(len(ids), dtype=torch.long, device=device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.update_key()
        self.enqueue(k)
        return loss.item()


moco = MomentumContrast()
for step in range(100):
    value = moco.step(torch.randint(1200, (64, 10), device=device))
    if step % 25 == 0:
        print(step, round(value, 3), len(moco.queue))
