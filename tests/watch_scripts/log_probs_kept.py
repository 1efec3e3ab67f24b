"""REINFORCE: the buffer of log-probabilities is not emptied after an update."""

import torch
from torch import nn

torch.manual_seed(0)


class Agent:
    def __init__(self):
        self.policy = nn.Sequential(nn.Linear(8, 128), nn.Tanh(), nn.Linear(128, 4))
        self.opt = torch.optim.Adam(self.policy.parameters())
        self.log_probs, self.rewards = [], []

    def act(self, state):
        dist = torch.distributions.Categorical(logits=self.policy(state))
        action = dist.sample()
        self.log_probs.append(dist.log_prob(action))  # the mistake
        return action

    def update(self, n):
        returns = torch.randn(n, 32)
        loss = -(torch.stack(self.log_probs[-n:]) * returns).mean()
        self.opt.zero_grad()
        loss.backward(retain_graph=False)
        self.opt.step()


agent = Agent()
for _episode in range(20):
    for _ in range(5):
        agent.act(torch.randn(32, 8))
    agent.act(torch.randn(32, 8))
    agent.update(5)
