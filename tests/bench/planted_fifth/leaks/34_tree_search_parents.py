import gc

import torch
from torch import nn

torch.manual_seed(34)
torch.set_num_threads(1)
gc.disable()


class Node:
    def __init__(self, state, parent=None):
        self.state, self.parent = state, parent
        self.children, self.visits, self.value = [], 0, 0.0

    def expand(self, dynamics):
        for action in range(3):
            self.children.append(Node(dynamics(self.state, action), parent=self))

    def backup(self, value):
        node = self
        while node is not None:
            node.visits += 1
            node.value += value
            node = node.parent


class World(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.ModuleList(nn.Linear(256, 256) for _ in range(3))
        self.v = nn.Linear(256, 1)

    def forward(self, state, action):
        return torch.tanh(self.step[action](state))


@torch.no_grad()
def search(world, state, simulations=6):
    root = Node(state)
    for _ in range(simulations):
        node = root
        while node.children:
            node = max(node.children, key=lambda n: n.value / (n.visits + 1) + 1 / (n.visits + 1))
        node.expand(world)
        node.backup(world.v(node.state).mean().item())
    return max(range(3), key=lambda a: root.children[a].visits)


world = World()
opt = torch.optim.Adam(world.parameters(), 1e-3)
for move in range(70):
    state = torch.randn(2, 256)
    action = search(world, state)
    target = state.roll(action, 1).tanh()
    predicted = world(state, action)
    loss = nn.functional.mse_loss(predicted, target) + world.v(predicted).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if move % 20 == 0:
        print(move, action, loss.item())
