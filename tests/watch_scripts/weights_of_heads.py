"""Attention over a melody's notes returns the weights of all heads, which nobody looks at."""

import torch
from torch import nn


class Melody(nn.Module):
    def __init__(self, width=24, heads=3):
        super().__init__()
        self.notes = nn.Embedding(128, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.next_note = nn.Linear(width, 128)

    def forward(self, melody):
        h = self.notes(melody)
        return self.next_note(self.attention(h, h, h)[0])  # the mistake


torch.manual_seed(0)
model = Melody()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(3):
    melody = torch.randint(128, (1, 900))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(melody).transpose(1, 2), melody).backward()
    optimizer.step()
