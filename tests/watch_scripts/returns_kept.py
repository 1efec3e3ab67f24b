"""A trajectory buffer of an agent: returns are computed with graphs and kept as baselines."""

import torch
from torch import nn


class Buffer:
    def __init__(self):
        self.returns = []

    def finish(self, values, rewards):
        running = torch.zeros(32)
        for value, reward in zip(reversed(values), reversed(rewards), strict=False):
            running = reward + 0.99 * running + 0.1 * value
        self.returns.append(running)  # the mistake
        return running.detach()


torch.manual_seed(0)
critic = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 1))
opt = torch.optim.Adam(critic.parameters())
buffer = Buffer()
for _episode in range(24):
    states = [torch.randn(32, 8) for _ in range(4)]
    values = [critic(s).squeeze(-1) for s in states]
    target = buffer.finish(values, [torch.randn(32) for _ in states])
    loss = (critic(states[0]).squeeze(-1) - target).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
