# REINFORCE on a toy vectorised "reach the target" task (after the pytorch/examples script)
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Categorical

torch.manual_seed(543)
torch.set_num_threads(1)
N_ENV = 48


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(8, 128)
        self.affine2 = nn.Linear(128, 4)
        self.saved_log_probs = []
        self.entropies = []
        self.rewards = []

    def forward(self, x):
        return F.softmax(self.affine2(F.relu(self.affine1(x))), dim=1)


policy = Policy()
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)


def select_action(state):
    m = Categorical(policy(state))
    action = m.sample()
    policy.saved_log_probs.append(m.log_prob(action))
    policy.entropies.append(m.entropy())  # LEAK
    return action


def finish_episode():
    R = torch.zeros(N_ENV)
    returns = []
    for r in policy.rewards[::-1]:
        R = r + 0.99 * R
        returns.insert(0, R)
    returns = torch.stack(returns)
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    loss = -(torch.stack(policy.saved_log_probs) * returns).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    del policy.rewards[:]
    del policy.saved_log_probs[:]


for episode in range(60):
    state = torch.randn(N_ENV, 8)
    for t in range(12):
        a = select_action(state)
        move = F.one_hot(a, 4).float()
        state = state.roll(1, dims=1) * 0.9
        state[:, :4] += 0.3 * move
        policy.rewards.append(-state.norm(dim=1))
    finish_episode()
    if episode % 20 == 0:
        print(episode, "entropy", policy.entropies[-1].mean().item())
