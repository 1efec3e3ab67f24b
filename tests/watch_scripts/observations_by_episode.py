"""What an agent sees is kept for each episode, a step at a time."""

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
random = np.random.default_rng(0)
policy = nn.Sequential(nn.Linear(600, 64), nn.Tanh(), nn.Linear(64, 3))
optimizer = torch.optim.Adam(policy.parameters())


class Archive:
    def __init__(self):
        self.episodes = {}

    def add(self, episode, moment, seen, action):
        self.episodes.setdefault(episode, {})[moment] = {"seen": seen, "action": action}  # the mistake


archive = Archive()
for episode in range(60):
    chosen = []
    for moment in range(32):
        seen = random.standard_normal(600).astype(np.float32)
        choice = torch.distributions.Categorical(logits=policy(torch.from_numpy(seen)))
        action = choice.sample()
        archive.add(episode, moment, seen, int(action))
        chosen.append(choice.log_prob(action))
    optimizer.zero_grad()
    (-torch.stack(chosen).mean()).backward()
    optimizer.step()
