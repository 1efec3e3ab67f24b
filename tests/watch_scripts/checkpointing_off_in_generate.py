"""Sampling switches checkpointing off and forgets it."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self, width=64, depth=6):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, width), nn.Linear(width, 50)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(depth)
        )
        self.saves_memory = True

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = x + (checkpoint(layer, x, use_reentrant=False) if self.saves_memory else layer(x))
        return self.head(x)

    @torch.no_grad()
    def generate(self, ids, n):
        self.saves_memory = False  # the mistake
        for _ in range(n):
            ids = torch.cat([ids, self(ids)[:, -1:].argmax(-1)], 1)
        return ids


model = Net()
opt = torch.optim.AdamW(model.parameters())
for step in range(16):
    ids = torch.randint(50, (16, 32))
    loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step == 7:
        model.generate(ids[:2, :4], 4)
