import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(103)
torch.set_num_threads(1)


class Contrast(nn.Module):
    def __init__(self, dim=64, size=1024):
        super().__init__()
        self.q = nn.Sequential(nn.Linear(200, 256), nn.ReLU(), nn.Linear(256, dim))
        self.k = nn.Sequential(nn.Linear(200, 256), nn.ReLU(), nn.Linear(256, dim))
        self.k.load_state_dict(self.q.state_dict())
        self.register_buffer("queue", F.normalize(torch.randn(size, dim), dim=1))
        self.at = 0

    @torch.no_grad()
    def keys(self, b):
        for p, k in zip(self.q.parameters(), self.k.parameters()):
            k.lerp_(p, 0.01)
        return F.normalize(self.k(b), dim=1)

    @torch.no_grad()
    def push(self, k):
        where = (self.at + torch.arange(len(k))) % len(self.queue)
        self.queue[where] = k
        self.at = int(where[-1] + 1) % len(self.queue)

    def forward(self, a, b):
        q, k = F.normalize(self.q(a), dim=1), self.keys(b)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone().T], 1) / 0.2
        self.push(k)
        return F.cross_entropy(logits, torch.zeros(len(a), dtype=torch.long))


net = Contrast()
opt = torch.optim.SGD(net.q.parameters(), lr=0.05, momentum=0.9)
for step in range(60):
    x = torch.randn(96, 200)
    loss = net(x + 0.2 * torch.randn_like(x), x + 0.2 * torch.randn_like(x))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item(), net.at)
