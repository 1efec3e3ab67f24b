"""PPO-like agent on a toy environment. Old log-probabilities and values go to the buffer as they come."""
import collections
import random
import torch
from torch import nn
from torch.distributions import Categorical

random.seed(1)
torch.manual_seed(1)
Transition = collections.namedtuple("Transition", "obs act logp value reward")


class Memory:
    def __init__(self, size=50_000):
        self._ring = collections.deque(maxlen=size)

    def __len__(self):
        return len(self._ring)

    def push(self, *what):
        self._ring.append(Transition(*what))  # LEAK

    def draw(self, k):
        return random.sample(self._ring, k)


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh())
        self.pi, self.v = nn.Linear(256, 6), nn.Linear(256, 1)

    def forward(self, o):
        h = self.trunk(o)
        return Categorical(logits=self.pi(h)), self.v(h).squeeze(-1)


agent, memory = Agent(), Memory()
opt = torch.optim.Adam(agent.parameters(), 3e-4)
obs = torch.randn(32, 64)
for update in range(40):
    for _ in range(4):
        dist, value = agent(obs)
        act = dist.sample()
        reward = (act == 2).float() - 0.1
        memory.push(obs, act, dist.log_prob(act), value, reward)
        obs = torch.randn(32, 64)
    for tr in memory.draw(min(3, len(memory))):
        dist, value = agent(tr.obs)
        ratio = (dist.log_prob(tr.act) - tr.logp.detach()).exp()
        adv = tr.reward - tr.value.detach()
        loss = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean() + (value - tr.reward).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if update % 10 == 9:
        print(f"update {update + 1} loss {loss.item():.4f} buffer {len(memory)}")
