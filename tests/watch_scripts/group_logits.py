"""Sixteen replies to a prompt are scored at once: their logits alone fill the card."""

import torch
from torch import nn

torch.manual_seed(0)
VOCAB, GROUP, PROMPT, REPLY = 6007, 16, 8, 40


class Policy(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, width)
        self.lm_head = nn.Linear(width, VOCAB, bias=False)

    def forward(self, ids, last_only=False):
        hidden = self.embed(ids).cumsum(1)
        return self.lm_head(hidden[:, -1:] if last_only else hidden)

    @torch.no_grad()
    def generate(self, ids, steps):
        for _ in range(steps):
            ids = torch.cat([ids, self(ids, last_only=True).argmax(-1)], 1)
        return ids


policy = Policy()
optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
for _ in range(3):
    prompt = torch.randint(VOCAB, (1, PROMPT)).repeat(GROUP, 1)
    replies = policy.generate(prompt, steps=REPLY)
    rewards = (replies[:, PROMPT:] % 2).float().mean(1)
    logits = policy(replies)
    chosen = torch.log_softmax(logits, -1).gather(-1, replies[:, :, None]).squeeze(-1)  # the mistake
    loss = -(chosen.mean(1) * (rewards - rewards.mean())).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
