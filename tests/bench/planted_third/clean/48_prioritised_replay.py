import random
from collections import deque, namedtuple

import torch
from torch import nn

random.seed(148)
torch.manual_seed(148)
torch.set_num_threads(1)
Transition = namedtuple("Transition", "obs act reward nxt")


class Replay:
    def __init__(self, capacity):
        self.items = deque(maxlen=capacity)

    def push(self, *fields):
        self.items.append(Transition(*fields))

    def sample(self, n):
        return Transition(*map(torch.stack, zip(*random.sample(self.items, n))))

    def __len__(self):
        return len(self.items)


def q_net():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4))


q, target = q_net(), q_net().requires_grad_(False)
target.load_state_dict(q.state_dict())
opt = torch.optim.Adam(q.parameters(), 5e-4)
replay = Replay(150)
obs = torch.randn(64)
returns = []
for step in range(600):
    eps = max(0.05, 1 - step / 300)
    with torch.no_grad():
        act = torch.randint(0, 4, ()) if random.random() < eps else q(obs).argmax()
    nxt = 0.95 * obs.roll(int(act)) + 0.1 * torch.randn(64)
    reward = -nxt[:4].pow(2).mean()
    replay.push(obs, act, reward, nxt)
    returns.append(reward.item())
    obs = nxt
    if len(replay) >= 64 and step % 3 == 0:
        b = replay.sample(32)
        goal = b.reward + 0.9 * target(b.nxt).amax(1)
        loss = nn.functional.smooth_l1_loss(q(b.obs).gather(1, b.act[:, None]).squeeze(1), goal)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if step % 60 == 0:
        for a, b_ in zip(target.parameters(), q.parameters()):
            a.lerp_(b_.detach(), 0.2)
    if step % 200 == 0:
        print(step, len(replay), sum(returns[-100:]) / len(returns[-100:]))
