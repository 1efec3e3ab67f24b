import random
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class ReplayMemory:
    def __init__(self, capacity):
        self.buffer = deque(maxlen=capacity)

    def push(self, *transition):
        self.buffer.append(transition)

    def sample(self, n):
        return [torch.stack(column) for column in zip(*random.sample(self.buffer, n))]

    def __len__(self):
        return len(self.buffer)


def q_net():
    return nn.Sequential(
        nn.Conv2d(2, 8, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, 64), nn.ReLU(), nn.Linear(64, 4)
    ).to(device)


policy, target = q_net(), q_net()
target.load_state_dict(policy.state_dict())
optimizer = torch.optim.Adam(policy.parameters(), lr=5e-4)
memory = ReplayMemory(capacity=150)
obs = torch.rand(2, 32, 32, device=device)
epsilon = 1.0

for step in range(400):
    epsilon = max(0.05, epsilon * 0.99)
    if random.random() < epsilon:
        action = torch.randint(0, 4, (), device=device)
    else:
        with torch.no_grad():
            action = policy(obs.unsqueeze(0)).argmax()
    next_obs = torch.rand(2, 32, 32, device=device)
    memory.push(obs, action, next_obs.mean(), next_obs)
    obs = next_obs
    if len(memory) >= 32 and step % 3 == 0:
        s, a, r, s2 = memory.sample(24)
        with torch.no_grad():
            y = r + 0.98 * target(s2).max(1).values
        loss = F.smooth_l1_loss(policy(s).gather(1, a.unsqueeze(1)).squeeze(1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if step % 50 == 49:
        target.load_state_dict(policy.state_dict())
        print(f"step {step} epsilon {epsilon:.2f} loss {loss.item():.4f} memory {len(memory)}")
