"""A frozen teacher is called in every step, and replies are sampled now and then."""

import torch
from torch import nn

torch.manual_seed(0)


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(64, width)
        self.mix = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, 64)

    def forward(self, ids):
        return self.head(self.mix(self.embed(ids))[0])


@torch.no_grad()
def generate(model, ids, steps):
    for _ in range(steps):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


teacher, student = Model(48).eval(), Model(24)
optimizer = torch.optim.Adam(student.parameters())
for step in range(18):
    ids = torch.randint(64, (4, 32))
    with torch.no_grad():
        wanted = teacher(ids).softmax(-1)
    loss = nn.functional.cross_entropy(student(ids).flatten(0, 1), wanted.flatten(0, 1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 6 == 5:
        print([generate(student, torch.randint(64, (1, 8)), 3).shape for _ in range(3)])
