import random
from dataclasses import dataclass, field

import torch
from torch import nn

torch.manual_seed(17)
random.seed(17)
torch.set_num_threads(1)


@dataclass
class Replay:
    capacity: int = 400
    episodes: int = 0
    data: list = field(default_factory=list)

    def push(self, frame, action, reward, done):
        if self.episodes > self.capacity:
            self.data.pop(0)
        self.data.append((frame, action, reward))
        self.episodes += int(done)

    def sample(self, n):
        frames, actions, rewards = zip(*random.sample(self.data, n))
        return torch.stack(frames), torch.tensor(actions), torch.tensor(rewards)


q_net = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 3))
opt = torch.optim.Adam(q_net.parameters(), 1e-3)
memory = Replay()
frame = torch.rand(3, 32, 32)
for t in range(240):
    with torch.no_grad():
        action = random.randrange(3) if random.random() < 0.3 else q_net(frame[None]).argmax().item()
    reward = float(frame[action].mean() > 0.5)
    memory.push(frame, action, reward, done=t % 60 == 59)
    frame = (0.7 * frame + 0.3 * torch.rand(3, 32, 32)).roll(1, 2)
    if t < 32:
        continue
    frames, actions, rewards = memory.sample(16)
    value = q_net(frames).gather(1, actions[:, None]).squeeze(1)
    loss = nn.functional.smooth_l1_loss(value, rewards)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if t % 60 == 59:
        print(t, loss.item(), len(memory.data))
