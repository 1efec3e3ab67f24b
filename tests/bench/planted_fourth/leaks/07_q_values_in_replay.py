import random
from collections import deque, namedtuple

import torch
from torch import nn

random.seed(1)
torch.manual_seed(1)
torch.set_num_threads(1)
Transition = namedtuple("Transition", "state action reward next_state q")


class QNet(nn.Module):
    def __init__(self, obs=60, actions=5):
        super().__init__()
        self.feature = nn.Sequential(nn.Linear(obs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.adv, self.val = nn.Linear(256, actions), nn.Linear(256, 1)

    def forward(self, x):
        h = self.feature(x)
        a = self.adv(h)
        return self.val(h) + a - a.mean(1, keepdim=True)


class Agent:
    def __init__(self):
        self.online, self.target = QNet(), QNet()
        self.target.load_state_dict(self.online.state_dict())
        self.memory = deque(maxlen=50_000)
        self.opt = torch.optim.Adam(self.online.parameters(), 1e-4)

    def act(self, state):
        q = self.online(state)
        a = q.argmax(1)
        return a, q.gather(1, a[:, None]).squeeze(1)

    def remember(self, *items):
        self.memory.append(Transition(*items))

    def learn(self, n=4):
        batch = random.sample(self.memory, n)
        s = torch.cat([b.state for b in batch])
        a = torch.cat([b.action for b in batch])
        r = torch.cat([b.reward for b in batch])
        with torch.no_grad():
            y = r + 0.95 * self.target(torch.cat([b.next_state for b in batch])).amax(1)
        loss = nn.functional.smooth_l1_loss(self.online(s).gather(1, a[:, None]).squeeze(1), y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()


agent = Agent()
state = torch.randn(16, 60)
for step in range(150):
    action, q = agent.act(state)
    following = torch.randn(16, 60)
    agent.remember(state, action, (action == 2).float(), following, q)
    state = following
    if len(agent.memory) >= 8:
        loss = agent.learn()
    if step % 50 == 49:
        agent.target.load_state_dict(agent.online.state_dict())
        print(step, loss)
