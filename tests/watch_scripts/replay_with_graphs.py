"""A replay buffer stores the value estimates with their graphs."""

from collections import deque, namedtuple

import torch
from torch import nn

torch.manual_seed(0)
Transition = namedtuple("Transition", "state value reward")


class Replay:
    def __init__(self, capacity):
        self.memory = deque(maxlen=capacity)

    def push(self, *items):
        self.memory.append(Transition(*items))  # the mistake

    def sample(self, n):
        return list(self.memory)[:n]


critic = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 1))
opt = torch.optim.Adam(critic.parameters())
replay = Replay(10000)
for _step in range(24):
    state = torch.randn(32, 8)
    value = critic(state)
    replay.push(state, value, torch.randn(32, 1))
    batch = replay.sample(8)
    states = torch.cat([t.state for t in batch])
    rewards = torch.cat([t.reward for t in batch])
    loss = (critic(states) - rewards).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
