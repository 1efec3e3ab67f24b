"""Soft actor-critic style training from a preallocated replay buffer."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
OBS, ACT = 48, 4


class ReplayBuffer:
    def __init__(self, capacity):
        self.obs = torch.zeros(capacity, OBS, device=device)
        self.nxt = torch.zeros(capacity, OBS, device=device)
        self.act = torch.zeros(capacity, ACT, device=device)
        self.rew = torch.zeros(capacity, device=device)
        self.capacity, self.pos, self.size = capacity, 0, 0

    def add(self, obs, act, rew, nxt):
        idx = (self.pos + torch.arange(len(obs), device=device)) % self.capacity
        self.obs[idx], self.act[idx], self.rew[idx], self.nxt[idx] = obs, act, rew, nxt
        self.pos = (self.pos + len(obs)) % self.capacity
        self.size = min(self.size + len(obs), self.capacity)

    def sample(self, n):
        idx = torch.randint(self.size, (n,), device=device)
        return self.obs[idx], self.act[idx], self.rew[idx], self.nxt[idx]


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, 96), nn.ReLU(), nn.Linear(96, o)).to(device)


torch.manual_seed(0)
actor, critic, target = mlp(OBS, ACT), mlp(OBS + ACT, 1), mlp(OBS + ACT, 1)
target.load_state_dict(critic.state_dict())
opt_a = torch.optim.Adam(actor.parameters(), lr=1e-3)
opt_c = torch.optim.Adam(critic.parameters(), lr=1e-3)
buffer = ReplayBuffer(2048)
obs = torch.randn(32, OBS, device=device)
history = []
for step in range(60):
    with torch.no_grad():
        action = torch.tanh(actor(obs) + 0.1 * torch.randn(32, ACT, device=device))
        nxt = 0.9 * obs + 0.1 * torch.randn_like(obs)
    buffer.add(obs, action, -nxt[:, 0].abs(), nxt)
    obs = nxt
    o, a, r, n = buffer.sample(64)
    with torch.no_grad():
        y = r + 0.98 * target(torch.cat([n, torch.tanh(actor(n))], 1)).squeeze(1)
    c_loss = F.mse_loss(critic(torch.cat([o, a], 1)).squeeze(1), y)
    opt_c.zero_grad()
    c_loss.backward()
    opt_c.step()
    a_loss = -critic(torch.cat([o, torch.tanh(actor(o))], 1)).mean()
    opt_a.zero_grad()
    a_loss.backward()
    opt_a.step()
    with torch.no_grad():
        for t, p in zip(target.parameters(), critic.parameters(), strict=True):
            t.lerp_(p, 0.02)
    history.append((c_loss.item(), a_loss.item()))
print(len(history), history[-1])
