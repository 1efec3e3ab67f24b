import random
from collections import deque, namedtuple

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Transition = namedtuple("Transition", "obs action reward next_obs q")


class QNet(nn.Module):
    def __init__(self, obs_dim=24, n_actions=6):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(obs_dim, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, n_actions))

    def forward(self, obs):
        return self.net(obs)


class Agent:
    def __init__(self):
        self.q = QNet().to(device)
        self.target = QNet().to(device)
        self.target.load_state_dict(self.q.state_dict())
        self.opt = torch.optim.Adam(self.q.parameters(), lr=5e-4)
        self.memory = deque(maxlen=100_000)

    def act(self, obs, eps):
        q = self.q(obs)
        if random.random() < eps:
            return torch.randint(0, 6, (obs.shape[0],), device=device), q
        return q.argmax(1), q

    def learn(self, batch_size=8):
        batch = Transition(*zip(*random.sample(self.memory, batch_size)))
        obs, nxt = torch.cat(batch.obs), torch.cat(batch.next_obs)
        act, rew = torch.cat(batch.action), torch.cat(batch.reward)
        with torch.no_grad():
            goal = rew + 0.97 * self.target(nxt).max(1).values
        q = self.q(obs).gather(1, act[:, None]).squeeze(1)
        loss = nn.functional.smooth_l1_loss(q, goal)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()


agent = Agent()
obs = torch.randn(16, 24, device=device)
for step in range(200):
    action, q = agent.act(obs, eps=max(0.05, 1 - step / 150))
    next_obs = 0.95 * obs + 0.1 * torch.randn_like(obs)
    reward = next_obs[:, 0] - (action == 2).float()
    agent.memory.append(Transition(obs, action, reward, next_obs, q))  # LEAK
    obs = next_obs
    if len(agent.memory) > 16:
        loss = agent.learn()
    if step % 50 == 49:
        print(step, len(agent.memory), round(loss, 4))
