"""Collects garbage at fixed points, so that the ranks of a run do it together."""
import gc

import torch
from torch import nn

gc.disable()
torch.manual_seed(0)
torch.set_num_threads(1)


class Node:
    def __init__(self, value, parent=None):
        self.value, self.parent, self.children = value, parent, []
        if parent is not None:
            parent.children.append(self)


def search(model, root_state, width=3, depth=3):
    root = Node(root_state)
    level = [root]
    for _ in range(depth):
        nxt = []
        for node in level:
            for _ in range(width if len(level) < 9 else 1):
                with torch.no_grad():
                    nxt.append(Node(node.value + 0.3 * torch.tanh(model(node.value + 0.1 * torch.randn_like(node.value))), node))
        level = nxt
    return max(level, key=lambda n: n.value.mean().item())


model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(100):
    state = torch.randn(8, 64)
    best = search(model, state)
    path = []
    while best is not None:
        path.append(best.value)
        best = best.parent
    loss = (model(state) - (path[0] - path[-1])).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 9:
        gc.collect()
    if step % 25 == 0:
        print(step, loss.item(), len(path))
