"""An evaluation before the first step; the loop's variables stay bound. And an evaluation every ten steps."""

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Embedding(80, 48), nn.Linear(48, 80))
opt = torch.optim.AdamW(net.parameters())


@torch.no_grad()
def estimate(n):
    losses = []
    for _ in range(n):
        ids = torch.randint(80, (16, 32))
        logits = net(ids)
        losses.append(nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).item())
    return sum(losses) / n


x = torch.randint(80, (16, 32))
for i in range(41):
    if i % 10 == 0:
        estimate(4)
    logits = net(x)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), x.flatten())
    x = torch.randint(80, (16, 32))
    loss.backward()
    opt.step()
    opt.zero_grad(set_to_none=True)
