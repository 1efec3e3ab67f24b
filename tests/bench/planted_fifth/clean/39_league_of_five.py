import copy
import random
from collections import deque

import torch
from torch import nn

random.seed(139)
torch.manual_seed(139)
torch.set_num_threads(1)
player = nn.Sequential(nn.Linear(18, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 9))
league = deque([copy.deepcopy(player)], maxlen=5)
opt = torch.optim.Adam(player.parameters(), 1e-3)
for update in range(90):
    boards = torch.randn(64, 18).sign()
    ours = torch.distributions.Categorical(logits=player(boards))
    with torch.no_grad():
        theirs = random.choice(league)(boards).argmax(1)
    moves = ours.sample()
    reward = ((moves - theirs) % 9 < 4).float() - 0.5
    loss = -(ours.log_prob(moves) * reward).mean() - 0.01 * ours.entropy().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if update % 3 == 2:
        league.append(copy.deepcopy(player).requires_grad_(False))
    if update % 30 == 29:
        print(update, reward.mean().item(), len(league))
