import logging
import torch
from torch import nn
import torch.nn.functional as F

log = logging.getLogger("train")
log.setLevel(logging.DEBUG)


class RecentRecords(logging.Handler):
    """lets a dashboard ask for what has been logged"""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)  # LEAK

    def tail(self, n):
        return [r.getMessage()[:60] for r in self.records[-n:]]


class GCN(nn.Module):
    def __init__(self, f=16, h=64, c=4):
        super().__init__()
        self.w1, self.w2 = nn.Linear(f, h), nn.Linear(h, c)

    def forward(self, a, x):
        return a @ self.w2(F.relu(a @ self.w1(x)))


def graph(n=120):
    x = torch.randn(n, 16)
    a = (torch.cdist(x, x) < 4.5).float()
    return a / a.sum(1, keepdim=True).clamp(min=1), x, x[:, :4].argmax(1)


handler = RecentRecords()
log.addHandler(handler)
log.propagate = False
torch.set_num_threads(1)
torch.manual_seed(3)
net = GCN()
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
for step in range(100):
    a, x, y = graph()
    out = net(a, x)
    loss = F.cross_entropy(out, y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    log.debug("step %d adjacency %s", step, a)
    log.info("step %d loss %.4f", step, loss.item())
print(handler.tail(1))
