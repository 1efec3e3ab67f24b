import random
from collections import deque

import torch
from torch import nn

torch.manual_seed(117)
random.seed(117)
torch.set_num_threads(1)
q_net = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 3))
opt = torch.optim.Adam(q_net.parameters(), 1e-3)
memory = deque(maxlen=80)
frame = torch.rand(3, 32, 32)
for t in range(260):
    with torch.no_grad():
        action = random.randrange(3) if random.random() < 0.3 else q_net(frame[None]).argmax().item()
    memory.append((frame, action, float(frame[action].mean() > 0.5)))
    frame = (0.7 * frame + 0.3 * torch.rand(3, 32, 32)).roll(1, 2)
    if t < 16:
        continue
    frames, actions, rewards = zip(*random.sample(memory, 16))
    value = q_net(torch.stack(frames)).gather(1, torch.tensor(actions)[:, None]).squeeze(1)
    loss = nn.functional.smooth_l1_loss(value, torch.tensor(rewards))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if t % 60 == 59:
        print(t, loss.item(), len(memory))
