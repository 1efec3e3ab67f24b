import numpy as np
import torch
from torch import nn

torch.manual_seed(123)
np.random.seed(123)
torch.set_num_threads(1)


class Runner:
    returns = []

    def __init__(self, policy):
        self.policy = policy

    @torch.no_grad()
    def episode(self, length=50):
        frames = torch.from_numpy(np.random.rand(length, 400).astype(np.float32))
        actions = torch.distributions.Categorical(logits=self.policy(frames)).sample()
        rewards = ((frames[:, 0] > 0.5).long() == actions).float()
        self.returns.append(float(rewards.sum()))
        return frames, actions, rewards


policy = nn.Sequential(nn.Linear(400, 32), nn.Tanh(), nn.Linear(32, 2))
opt = torch.optim.Adam(policy.parameters(), 1e-2)
for i in range(110):
    frames, actions, rewards = Runner(policy).episode()
    logp = policy(frames).log_softmax(1).gather(1, actions[:, None]).squeeze(1)
    loss = -(logp * (rewards - rewards.mean())).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 25 == 0:
        print(i, np.mean(Runner.returns[-10:]))
