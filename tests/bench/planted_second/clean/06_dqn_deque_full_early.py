import random
from collections import deque

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

CAPACITY = 40
q = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4)).to(device)
target = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4)).to(device)
target.load_state_dict(q.state_dict())
opt = torch.optim.Adam(q.parameters(), lr=1e-3)
buffer = deque(maxlen=CAPACITY)
obs = torch.randn(64, 128, device=device)

for step in range(250):
    with torch.no_grad():
        values = q(obs)
    greedy = values.argmax(1)
    explore = torch.rand(64, device=device) < max(0.05, 1 - step / 100)
    action = torch.where(explore, torch.randint(0, 4, (64,), device=device), greedy)
    nxt = 0.9 * obs + 0.2 * torch.randn_like(obs)
    reward = (nxt[:, 0] > 0).float() * (action == 1)
    buffer.append((obs, action, reward, nxt, values))
    obs = nxt
    if len(buffer) < 8:
        continue
    o, a, r, n, _ = (torch.cat(t) for t in zip(*random.sample(buffer, 4)))
    with torch.no_grad():
        goal = r + 0.95 * target(n).amax(1)
    loss = nn.functional.smooth_l1_loss(q(o).gather(1, a[:, None])[:, 0], goal)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 50 == 49:
        target.load_state_dict(q.state_dict())
        print(step, len(buffer), loss.item())
