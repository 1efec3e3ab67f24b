import random
from collections import deque
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

torch.manual_seed(0)
random.seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Transition:
    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    state: tuple


class Experience:
    def __init__(self, capacity):
        self.storage = deque(maxlen=capacity)

    def store(self, item):
        self.storage.append(item)

    def sample(self, n):
        return random.sample(list(self.storage), n)


class RecurrentQ(nn.Module):
    def __init__(self, obs_dim=64, hidden=128, actions=6):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(obs_dim, hidden), nn.ReLU())
        self.core = nn.LSTMCell(hidden, hidden)
        self.q = nn.Linear(hidden, actions)

    def forward(self, obs, state):
        h, c = self.core(self.encoder(obs), state)
        return self.q(h), (h, c)


class VecEnv:
    def __init__(self, n):
        self.n = n

    def reset(self):
        return torch.randn(self.n, 64, device=device)

    def step(self, action):
        return torch.randn(self.n, 64, device=device), torch.rand(self.n, device=device)


def learn(net, optimizer, batch):
    loss = 0.0
    for t in batch:
        q, next_state = net(t.obs, tuple(s.detach() for s in t.state))
        with torch.no_grad():
            target = t.reward + 0.97 * net(t.next_obs, next_state)[0].max(1).values
        loss = loss + F.smooth_l1_loss(q.gather(1, t.action).squeeze(1), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


net = RecurrentQ().to(device)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
env = VecEnv(64)
experience = Experience(capacity=10_000)
obs = env.reset()
state = (torch.zeros(64, 128, device=device), torch.zeros(64, 128, device=device))

for step in range(90):
    q_values, next_state = net(obs, state)
    action = q_values.argmax(dim=1, keepdim=True)
    if random.random() < 0.1:
        action = torch.randint_like(action, 0, 6)
    next_obs, reward = env.step(action)
    experience.store(Transition(obs, action, reward, next_obs, state))
    obs, state = next_obs, next_state
    if step >= 8:
        loss = learn(net, optimizer, experience.sample(4))
        if step % 20 == 0:
            print(f"step {step} td loss {loss:.4f}")
