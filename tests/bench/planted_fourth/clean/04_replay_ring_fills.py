import random
from collections import deque

import torch
from torch import nn

random.seed(4)
torch.manual_seed(104)
torch.set_num_threads(1)


class Replay:
    def __init__(self, capacity=40):
        self.items = deque(maxlen=capacity)

    def add(self, *transition):
        self.items.append(tuple(t.detach().clone() for t in transition))

    def sample(self, n):
        return [torch.cat(column) for column in zip(*random.sample(self.items, n))]


def qnet():
    return nn.Sequential(nn.Linear(60, 192), nn.ReLU(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 5))


online, target = qnet(), qnet()
target.load_state_dict(online.state_dict())
opt = torch.optim.Adam(online.parameters(), 2e-4)
replay = Replay()
state = torch.randn(64, 60)
for step in range(120):
    with torch.no_grad():
        action = online(state).argmax(1)
        flip = torch.rand(len(action)) < max(0.05, 1 - step / 60)
        action[flip] = torch.randint(5, (int(flip.sum()),))
    after = torch.roll(state, 1, 1) + 0.2 * torch.randn_like(state)
    reward = (action == (state[:, :5].argmax(1))).float()
    replay.add(state, action, reward, after)
    state = after
    if step < 10:
        continue
    s, a, r, n = replay.sample(4)
    with torch.no_grad():
        y = r + 0.9 * target(n).amax(1)
    loss = nn.functional.smooth_l1_loss(online(s).gather(1, a[:, None]).squeeze(1), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        target.load_state_dict(online.state_dict())
        print(step, loss.item(), len(replay.items))
