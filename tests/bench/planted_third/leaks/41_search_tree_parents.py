import gc
import math
import random

import torch
from torch import nn

gc.disable()
random.seed(41)
torch.manual_seed(41)
torch.set_num_threads(1)


class Node:
    __slots__ = ("state", "prior", "parent", "kids", "n", "w")

    def __init__(self, state, prior, parent=None):
        self.state, self.prior = state, prior
        self.parent = parent
        self.kids, self.n, self.w = {}, 0, 0.0

    def best(self, c=1.4):
        def ucb(k):
            return (k.w / k.n if k.n else 0.0) + c * k.prior * math.sqrt(self.n + 1) / (1 + k.n)
        return max(self.kids.values(), key=ucb)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(512, 64), nn.ReLU())
        self.pi, self.v = nn.Linear(64, 3), nn.Linear(64, 1)

    def forward(self, s):
        h = self.body(s)
        return self.pi(h).softmax(-1), self.v(h).tanh().squeeze(-1)


@torch.no_grad()
def search(net, root_state, sims=16):
    root = Node(root_state, 1.0)
    for _ in range(sims):
        node = root
        while node.kids:
            node = node.best()
        prior, value = net(node.state)
        for a in range(3):
            node.kids[a] = Node(torch.roll(node.state, a + 1) * 0.98, prior[a].item(), node)
        v = value.item()
        while node is not None:
            node.n, node.w = node.n + 1, node.w + v
            node = node.parent
    visits = torch.tensor([root.kids[a].n for a in range(3)], dtype=torch.float)
    return visits / visits.sum()


net = Net()
opt = torch.optim.Adam(net.parameters(), 1e-3)
for move in range(60):
    s = torch.randn(512)
    target = search(net, s)
    p, v = net(s)
    loss = -(target * p.log()).sum() + (v - s.mean().sign()).pow(2)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if move % 20 == 0:
        print(move, round(loss.item(), 3), target.tolist())
