import weakref
import torch
import torch.nn as nn


class Node:
    def __init__(self, value, parent=None):
        self.value = value
        self._parent = weakref.ref(parent) if parent is not None else None
        self.children = []
        if parent is not None:
            parent.children.append(self)

    @property
    def parent(self):
        return self._parent() if self._parent else None


def build(depth):
    root = Node(torch.randn(16, 24))
    cur = [root]
    for _ in range(depth):
        cur = [Node(torch.randn(16, 24), p) for p in cur for _ in range(2)]
    return root, cur


class Recursive(nn.Module):
    def __init__(self, d=24, h=48):
        super().__init__()
        self.i, self.h, self.o = nn.Linear(d, h), nn.Linear(h, h), nn.Linear(h, 1)

    def walk(self, n):
        x = self.i(n.value)
        for c in n.children:
            x = x + self.h(self.walk(c))
        return torch.tanh(x)

    def forward(self, n):
        return self.o(self.walk(n))


torch.set_num_threads(1)
torch.manual_seed(33)
net = Recursive()
opt = torch.optim.SGD(net.parameters(), lr=0.02)
for step in range(70):
    root, leaves = build(3)
    y = leaves[0].parent.value.mean(1, keepdim=True)
    loss = (net(root) - y).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item(), len(leaves))
