import random

import numpy as np
import torch
from torch import nn

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)


class PixelEnv:
    def reset(self):
        self.t = 0
        self.frame = np.random.rand(4, 64, 64)
        return self.frame

    def step(self, a):
        self.t += 1
        self.frame = np.roll(self.frame, 1, axis=0)
        self.frame[0] = np.random.rand(64, 64)
        return self.frame, float(self.frame[0].mean() > 0.5) * a, self.t >= 20


class ReplayMemory:
    def __init__(self):
        self.data = []

    def push(self, s, a, r, s2, done):
        self.data.append((s.copy(), a, r, s2.copy(), done))  # LEAK

    def sample(self, k):
        s, a, r, s2, d = zip(*random.sample(self.data, k))
        return (torch.tensor(np.stack(s), dtype=torch.float32), torch.tensor(a), torch.tensor(r),
                torch.tensor(np.stack(s2), dtype=torch.float32), torch.tensor(d, dtype=torch.float32))


q = nn.Sequential(nn.Conv2d(4, 8, 8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 15 * 15, 2))
opt = torch.optim.RMSprop(q.parameters(), lr=2.5e-4)
env, memory = PixelEnv(), ReplayMemory()
state = env.reset()
for step in range(300):
    action = random.randrange(2) if random.random() < 0.2 else int(q(torch.tensor(state[None], dtype=torch.float32)).argmax())
    nxt, reward, done = env.step(action)
    memory.push(state, action, reward, nxt, done)
    state = env.reset() if done else nxt
    if step >= 32 and step % 2 == 0:
        s, a, r, s2, d = memory.sample(8)
        with torch.no_grad():
            goal = r + 0.99 * (1 - d) * q(s2).max(1).values
        loss = nn.functional.smooth_l1_loss(q(s).gather(1, a[:, None]).squeeze(1), goal)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if step % 100 == 99:
        print(step, len(memory.data), loss.item())
