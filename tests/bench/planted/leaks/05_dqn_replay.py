import random
from collections import deque, namedtuple

import torch
import torch.nn as nn

Transition = namedtuple("Transition", "state q action reward next_state")


class ReplayMemory:
    def __init__(self, capacity):
        self.data = deque(maxlen=capacity)

    def push(self, *args):
        self.data.append(Transition(*args))  # LEAK

    def sample(self, k):
        return random.sample(self.data, k)

    def __len__(self):
        return len(self.data)


class LineWorld:
    """walk on a line, reward near the origin"""

    def __init__(self):
        self.pos = torch.zeros(6)

    def reset(self):
        self.pos = torch.randn(6)
        return self.pos.clone()

    def step(self, a):
        self.pos[a % 6] += -0.3 if a < 6 else 0.3
        return self.pos.clone(), -self.pos.norm().item()


random.seed(0)
torch.set_num_threads(1)
torch.manual_seed(0)
qnet = nn.Sequential(nn.Linear(6, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 12))
opt = torch.optim.Adam(qnet.parameters(), lr=1e-3)
memory = ReplayMemory(10_000)
env = LineWorld()
s = env.reset()
for t in range(150):
    q = qnet(s)
    a = random.randrange(12) if random.random() < 0.2 else int(q.argmax())
    s2, r = env.step(a)
    memory.push(s, q, a, r, s2)
    s = s2 if t % 25 else env.reset()
    if len(memory) < 16:
        continue
    batch = memory.sample(16)
    st = torch.stack([b.state for b in batch])
    nx = torch.stack([b.next_state for b in batch])
    act = torch.tensor([b.action for b in batch])
    rew = torch.tensor([b.reward for b in batch])
    with torch.no_grad():
        target = rew + 0.95 * qnet(nx).max(1).values
    loss = nn.functional.smooth_l1_loss(qnet(st).gather(1, act[:, None]).squeeze(1), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
print("done", len(memory), loss.item())
