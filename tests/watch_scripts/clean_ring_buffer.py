"""A replay buffer of fixed size: it fills, and stays full."""

from collections import deque

import torch
from torch import nn

torch.manual_seed(0)


class Agent:
    def __init__(self, capacity):
        self.memory = deque(maxlen=capacity)
        self.policy = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 4))
        self.optimizer = torch.optim.RMSprop(self.policy.parameters())

    @torch.no_grad()
    def act(self, state):
        return self.policy(state).argmax(-1)

    def learn(self):
        batch = torch.cat([self.memory[i] for i in torch.randint(len(self.memory), (4,)).tolist()])
        loss = self.policy(batch).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


agent = Agent(capacity=10)
for _ in range(32):
    state = torch.randn(64, 128)
    agent.act(state)
    agent.memory.append(state)
    agent.learn()
