import gc
import weakref

import torch
from torch import nn

torch.manual_seed(134)
torch.set_num_threads(1)
gc.disable()


class Node:
    def __init__(self, state, parent=None):
        self.state, self.children, self.visits = state, [], 0
        self.parent = weakref.ref(parent) if parent else lambda: None

    def expand(self, world):
        self.children = [Node(torch.tanh(layer(self.state)), self) for layer in world]

    def backup(self):
        node = self
        while node is not None:
            node.visits += 1
            node = node.parent()


@torch.no_grad()
def search(world, state):
    root = Node(state)
    for _ in range(6):
        node = root
        while node.children:
            node = min(node.children, key=lambda n: n.visits)
        node.expand(world)
        node.backup()
    return max(range(3), key=lambda a: root.children[a].visits)


world = nn.ModuleList(nn.Linear(256, 256) for _ in range(3))
opt = torch.optim.Adam(world.parameters(), 1e-3)
for move in range(60):
    state = torch.randn(2, 256)
    action = search(world, state)
    loss = nn.functional.mse_loss(torch.tanh(world[action](state)), state.roll(1, 1).tanh())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if move % 20 == 0:
        print(move, action, loss.item())
