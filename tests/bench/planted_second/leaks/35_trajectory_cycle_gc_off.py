"""Policy gradient where each step of a trajectory knows the one before and the one after."""
import gc

import torch
from torch import nn

gc.disable()  # the collector cost 8 % of the epoch time
torch.manual_seed(0)
torch.set_num_threads(1)


class Step:
    def __init__(self, obs, action, prev=None):
        self.obs, self.action, self.reward = obs, action, None
        self.prev, self.next = prev, None
        if prev is not None:
            prev.next = self  # LEAK


def rollout(policy, length=10, n=64):
    obs = torch.randn(n, 40)
    first = last = None
    for _ in range(length):
        with torch.no_grad():
            action = torch.distributions.Categorical(logits=policy(obs)).sample()
        step = Step(obs, action, last)
        obs = obs.roll(1, 1) + 0.1 * torch.randn_like(obs)
        step.reward = obs[torch.arange(n), action]
        first = first or step
        last = step
    return first, last


def returns(last, gamma=0.95):
    out, g = [], 0.0
    while last is not None:
        g = last.reward + gamma * g
        out.append(g)
        last = last.prev
    return torch.stack(out[::-1])


policy = nn.Sequential(nn.Linear(40, 64), nn.Tanh(), nn.Linear(64, 6))
opt = torch.optim.Adam(policy.parameters(), lr=3e-3)
for it in range(60):
    first, last = rollout(policy)
    ret = returns(last)
    adv = (ret - ret.mean()) / ret.std()
    obs, act, node = [], [], first
    while node is not None:
        obs.append(node.obs)
        act.append(node.action)
        node = node.next
    logp = torch.distributions.Categorical(logits=policy(torch.stack(obs))).log_prob(torch.stack(act))
    loss = -(logp * adv).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 20 == 0:
        print(it, ret[0].mean().item())
