import random
import torch
import torch.nn as nn


class RingBuffer:
    def __init__(self, capacity):
        self.items, self.capacity, self.pos = [], capacity, 0

    def push(self, item):
        if len(self.items) < self.capacity:
            self.items.append(item)
        else:
            self.items[self.pos] = item
        self.pos = (self.pos + 1) % self.capacity

    def sample(self, k):
        s, a, r, n = zip(*random.sample(self.items, k))
        return torch.stack(s), torch.tensor(a), torch.tensor(r), torch.stack(n)


random.seed(0)
torch.set_num_threads(1)
torch.manual_seed(8)
q = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4))
target = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4))
target.load_state_dict(q.state_dict())
opt = torch.optim.RMSprop(q.parameters(), lr=1e-3)
buf = RingBuffer(200)
s = torch.randn(64)
for t in range(140):
    for _ in range(8):
        with torch.no_grad():
            a = random.randrange(4) if random.random() < 0.2 else q(s).argmax().item()
        n = torch.randn(64)
        buf.push((s, a, float(n[a] > s[a]), n))
        s = n
    if len(buf.items) < 64:
        continue
    bs, ba, br, bn = buf.sample(32)
    with torch.no_grad():
        y = br + 0.9 * target(bn).max(1).values
    loss = (q(bs).gather(1, ba[:, None]).squeeze(1) - y).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if t % 20 == 0:
        target.load_state_dict(q.state_dict())
        print(t, len(buf.items), loss.item())
