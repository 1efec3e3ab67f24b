import heapq
import itertools
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(41)
counter = itertools.count()
net = nn.Sequential(nn.Linear(28, 180), nn.ReLU(), nn.Linear(180, 180), nn.ReLU(), nn.Linear(180, 4))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
vx = torch.randn(64, 28)
vy = vx[:, :4].argmax(1)
top = []


def snapshot(score, k=2):
    if len(top) < k or score > top[0][0]:
        item = (score, next(counter), {n: p.detach().clone() for n, p in net.named_parameters()})
        if len(top) < k:
            heapq.heappush(top, item)
        else:
            heapq.heapreplace(top, item)


for step in range(100):
    x = torch.randn(32, 28)
    loss = nn.functional.cross_entropy(net(x), x[:, :4].argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 4 == 3:
        with torch.no_grad():
            snapshot((net(vx).argmax(1) == vy).float().mean().item())
print([round(s, 3) for s, _, _ in sorted(top, reverse=True, key=lambda t: t[:2])])
