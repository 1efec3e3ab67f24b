"""A policy is trained on its own replies, whose scores go to a buffer that nobody empties."""

import torch
from torch import nn

torch.manual_seed(0)


class Policy(nn.Module):
    def __init__(self, vocab=512, width=32):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.mix = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, ids):
        return self.head(self.mix(self.embed(ids))[0])

    @torch.no_grad()
    def generate(self, ids, steps):
        scores = []
        for _ in range(steps):
            scores.append(self(ids)[:, -1])
            ids = torch.cat([ids, scores[-1].argmax(-1, keepdim=True)], 1)
        return ids, torch.stack(scores, 1)


policy = Policy()
optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
buffer = []
for _ in range(24):
    prompts = torch.randint(512, (8, 4))
    replies, scores = policy.generate(prompts, steps=8)
    buffer.append((replies, scores))  # the mistake
    rewards = (replies[:, 4:] % 2).float().mean(1)
    logits = policy(replies[:, :-1])[:, 3:]
    chosen = torch.log_softmax(logits, -1).gather(-1, replies[:, 4:, None]).squeeze(-1)
    loss = -(chosen.mean(1) * (rewards - rewards.mean())).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(len(buffer))
