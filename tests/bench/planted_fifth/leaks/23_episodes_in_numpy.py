from collections import defaultdict

import numpy as np
import torch
from torch import nn

torch.manual_seed(23)
np.random.seed(23)
torch.set_num_threads(1)


class Runner:
    archive = defaultdict(list)

    def __init__(self, policy):
        self.policy = policy

    @torch.no_grad()
    def episode(self, length=50):
        frames = np.random.rand(length, 32, 32).astype(np.float32)
        logits = self.policy(torch.from_numpy(frames).flatten(1))
        actions = torch.distributions.Categorical(logits=logits).sample().numpy()
        rewards = (frames[:, 0, 0] > 0.5).astype(np.int64) == actions
        self.archive[type(self.policy).__name__].append(dict(frames=frames, actions=actions, rewards=rewards))
        return frames, actions, rewards.astype(np.float32)


def reinforce(policy, opt, frames, actions, rewards):
    logits = policy(torch.from_numpy(frames).flatten(1))
    logp = logits.log_softmax(1).gather(1, torch.from_numpy(actions)[:, None]).squeeze(1)
    advantage = torch.from_numpy(rewards - rewards.mean())
    loss = -(logp * advantage).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()


policy = nn.Sequential(nn.Linear(1024, 32), nn.Tanh(), nn.Linear(32, 2))
opt = torch.optim.Adam(policy.parameters(), 1e-2)
for i in range(110):
    reinforce(policy, opt, *Runner(policy).episode())
    if i % 25 == 0:
        last = Runner.archive["Sequential"][-10:]
        print(i, np.mean([e["rewards"].mean() for e in last]))
