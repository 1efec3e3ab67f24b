import numpy as np
import torch
import torch.nn as nn

np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)


class RingBuffer:
    def __init__(self, capacity, obs_dim):
        self.obs = np.zeros((capacity, obs_dim), np.float32)
        self.act = np.zeros((capacity, 2), np.float32)
        self.rew = np.zeros(capacity, np.float32)
        self.capacity, self.pos, self.full = capacity, 0, False

    def add(self, o, a, r):
        self.obs[self.pos], self.act[self.pos], self.rew[self.pos] = o, a, r
        self.pos += 1
        if self.pos == self.capacity:
            self.pos, self.full = 0, True

    def sample(self, n):
        idx = np.random.randint(0, self.capacity if self.full else self.pos, n)
        return tuple(torch.from_numpy(v[idx]) for v in (self.obs, self.act, self.rew))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(18, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, o, a):
        return self.net(torch.cat([o, a], 1)).squeeze(1)


critic = Critic()
actor = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2), nn.Tanh())
c_opt = torch.optim.Adam(critic.parameters(), 1e-3)
a_opt = torch.optim.Adam(actor.parameters(), 1e-4)
buffer = RingBuffer(500, 16)
o = np.random.randn(16).astype(np.float32)
for step in range(600):
    with torch.no_grad():
        a = actor(torch.from_numpy(o)).numpy() + 0.1 * np.random.randn(2)
    buffer.add(o, a, float(o[:2] @ a))
    o = (0.9 * o + 0.3 * np.random.randn(16)).astype(np.float32)
    if step >= 64 and step % 4 == 0:
        bo, ba, br = buffer.sample(32)
        c_loss = (critic(bo, ba) - br).pow(2).mean()
        c_opt.zero_grad()
        c_loss.backward()
        c_opt.step()
        a_loss = -critic(bo, actor(bo)).mean()
        a_opt.zero_grad()
        a_loss.backward()
        a_opt.step()
    if step % 200 == 199:
        print(step, c_loss.item(), a_loss.item())
