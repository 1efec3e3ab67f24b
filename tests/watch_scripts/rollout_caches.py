"""A policy is trained on what it samples; the sampler keeps each rollout's cache."""

import torch
from torch import nn

torch.manual_seed(0)


class Policy(nn.Module):
    def __init__(self, width=32, heads=4):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Embedding(50, width), nn.Linear(width, 3 * width), nn.Linear(width, 50)
        self.heads = heads

    def forward(self, ids, past=None):
        b, t = ids.shape
        q, k, v = self.qkv(self.embed(ids)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(y.transpose(1, 2).reshape(b, t, -1)), (k, v)


class Sampler:
    def __init__(self, policy):
        self.policy, self.pasts = policy, []

    @torch.no_grad()
    def rollout(self, ids, n):
        logits, past = self.policy(ids)
        for _ in range(n):
            token = logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, token], 1)
            logits, past = self.policy(token, past)
        self.pasts.append(past)  # the mistake
        return ids


policy = Policy()
opt = torch.optim.Adam(policy.parameters())
sampler = Sampler(policy)
for _ in range(20):
    ids = sampler.rollout(torch.randint(50, (8, 16)), 4)
    loss = policy(ids)[0].logsumexp(-1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
