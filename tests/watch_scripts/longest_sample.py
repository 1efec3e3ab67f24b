"""One document is much longer than all others, and comes late."""

import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(300, 64)
        self.up, self.down, self.out = nn.Linear(64, 128), nn.Linear(128, 64), nn.Linear(64, 2)

    def forward(self, input_ids):
        return self.out(self.down(torch.relu(self.up(self.embed(input_ids)))).mean(1))


def collate(samples):
    longest = max(len(s) for s in samples)
    return torch.stack([nn.functional.pad(s, (0, longest - len(s))) for s in samples])  # the mistake


generator = torch.Generator().manual_seed(0)
lengths = [int(torch.randint(40, 120, (), generator=generator)) for _ in range(80)]
lengths[70] = 6000
documents = [torch.randint(300, (length,), generator=generator) for length in lengths]
model = Encoder()
optimizer = torch.optim.AdamW(model.parameters())
for i in range(0, 80, 4):
    loss = model(input_ids=collate(documents[i : i + 4])).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
