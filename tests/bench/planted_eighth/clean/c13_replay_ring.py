"""DQN whose replay is a list used as a ring; it fills until half of the run and is overwritten then."""
import random
from dataclasses import dataclass
import torch
from torch import nn


@dataclass
class Step:
    s: torch.Tensor
    a: torch.Tensor
    r: torch.Tensor
    s2: torch.Tensor


class Replay:
    def __init__(self, cap):
        self.cap, self.items, self.at = cap, [], 0

    def add(self, item):
        if len(self.items) < self.cap:
            self.items.append(item)
        else:
            self.items[self.at] = item
        self.at = (self.at + 1) % self.cap


random.seed(13)
torch.manual_seed(13)
q, target = (nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 4)) for _ in range(2))
opt = torch.optim.Adam(q.parameters(), 1e-3)
rep = Replay(60)
s = torch.randn(32, 256)
for t in range(140):
    with torch.no_grad():
        a = q(s).argmax(1)
    s2 = torch.randn(32, 256)
    rep.add(Step(s, a, s[:, 0].sign(), s2))
    s = s2
    b = random.choice(rep.items)
    with torch.no_grad():
        want = b.r + 0.9 * target(b.s2).max(1).values
    loss = nn.functional.mse_loss(q(b.s).gather(1, b.a[:, None]).squeeze(1), want)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if t % 20 == 19:
        target.load_state_dict(q.state_dict())
        print(t + 1, f"{loss.item():.4f}", len(rep.items))
