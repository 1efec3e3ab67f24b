"""Attention of one's own keeps keys and values from token to token, and nothing clears them before the next text."""

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.keys_in, self.values_in = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = self.values = None

    def forward(self, x):
        batch, tokens, _ = x.shape
        query = x.view(batch, tokens, self.heads, -1).transpose(1, 2)
        key = self.keys_in(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        value = self.values_in(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        if not self.training:
            if self.keys is not None:
                key = torch.cat([self.keys, key], 2)
                value = torch.cat([self.values, value], 2)
            self.keys, self.values = key, value  # the mistake
        mixed = torch.softmax(query @ key.transpose(2, 3), -1) @ value
        return mixed.transpose(1, 2).reshape(batch, tokens, -1)


torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(50, 32), Attention(32, 4), nn.Linear(32, 50))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(60):
    optimizer.zero_grad()
    model(torch.randint(50, (8, 12))).logsumexp(-1).mean().backward()
    optimizer.step()
    if step % 2:
        model.eval()
        ids = torch.zeros(8, 1, dtype=torch.long)
        with torch.no_grad():
            for _ in range(8):
                ids = model(ids).argmax(-1)
        model.train()
