"""A replay buffer of detached tensors that is full after a while."""

from collections import deque

import torch
from torch import nn

torch.manual_seed(0)
critic = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 1))
opt = torch.optim.Adam(critic.parameters())
memory = deque(maxlen=10)
for _step in range(40):
    state = torch.randn(256, 8)
    value = critic(state)
    memory.append((state, value.detach()))
    states = torch.cat([s for s, _ in memory])
    loss = critic(states).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
