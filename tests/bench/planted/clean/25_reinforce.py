import torch
import torch.nn as nn
from torch.distributions import Categorical


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 128)
        self.b = nn.Linear(128, 2)
        self.saved_log_probs = []
        self.rewards = []

    def forward(self, x):
        return torch.softmax(self.b(torch.relu(self.a(x))), dim=-1)


def finish_episode(policy, optimizer):
    R, returns = 0, []
    for r in reversed(policy.rewards):
        R = r + 0.99 * R
        returns.insert(0, R)
    ret = torch.tensor(returns)
    ret = (ret - ret.mean()) / (ret.std() + 1e-6)
    loss = torch.stack([-lp * g for lp, g in zip(policy.saved_log_probs, ret)]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    del policy.rewards[:]
    del policy.saved_log_probs[:]
    return loss.item()


torch.set_num_threads(1)
torch.manual_seed(24)
policy = Policy()
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
for episode in range(60):
    state = torch.zeros(4)
    for t in range(20):
        dist = Categorical(policy(state))
        action = dist.sample()
        policy.saved_log_probs.append(dist.log_prob(action))
        state = state * 0.9 + (action * 2 - 1) * 0.1 + 0.05 * torch.randn(4)
        policy.rewards.append(1.0 - state.abs().mean().item())
    total = sum(policy.rewards)
    loss = finish_episode(policy, optimizer)
    if episode % 15 == 0:
        print(episode, total, loss)
