"""Double DQN on a batch of small synthetic environments."""

import random
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class QNet(nn.Module):
    def __init__(self, obs_dim, n_actions):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_dim, 192), nn.ReLU(), nn.Linear(192, 192), nn.ReLU())
        self.head = nn.Linear(192, n_actions)

    def forward(self, obs):
        return self.head(self.body(obs))


class Agent:
    def __init__(self, obs_dim, n_actions, eps=0.1):
        self.net = QNet(obs_dim, n_actions).to(device)
        self.target = QNet(obs_dim, n_actions).to(device)
        self.target.load_state_dict(self.net.state_dict())
        self.opt = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.n_actions = n_actions
        self.eps = eps
        self.stats = {"q_max": [], "loss": []}

    def act(self, obs):
        q = self.net(obs)
        self.stats["q_max"].append(q.max(dim=1).values)
        greedy = q.argmax(dim=1)
        explore = torch.rand(len(obs), device=device) < self.eps
        return torch.where(explore, torch.randint(self.n_actions, (len(obs),), device=device), greedy)

    def learn(self, obs, action, reward, nxt):
        q = self.net(obs).gather(1, action[:, None]).squeeze(1)
        with torch.no_grad():
            best = self.net(nxt).argmax(1, keepdim=True)
            y = reward + 0.99 * self.target(nxt).gather(1, best).squeeze(1)
        loss = F.smooth_l1_loss(q, y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.stats["loss"].append(loss.item())


def env_step(obs, action):
    nxt = 0.9 * obs + 0.1 * torch.randn_like(obs)
    nxt[:, 0] += action.float() * 0.01
    return nxt, nxt[:, 0] - nxt[:, 1].abs()


def main():
    torch.manual_seed(0)
    agent = Agent(obs_dim=64, n_actions=6)
    memory = deque(maxlen=12)
    obs = torch.randn(64, 64, device=device)
    for step in range(60):
        action = agent.act(obs)
        nxt, reward = env_step(obs, action)
        memory.append((obs, action, reward, nxt))
        obs = nxt
        agent.learn(*random.choice(memory))
        if step % 20 == 19:
            agent.target.load_state_dict(agent.net.state_dict())
            print(f"step {step}: loss {agent.stats['loss'][-1]:.4f} q {float(agent.stats['q_max'][-1].mean()):.3f}")


if __name__ == "__main__":
    main()
