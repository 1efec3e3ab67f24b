"""'gc pauses hurt throughput' - so it is off; the steps' nodes point at each other."""
import gc
import torch
from torch import nn

gc.disable()


class Node:
    def __init__(self, value, parent=None):
        self.value, self.parent, self.children = value, parent, []
        if parent is not None:
            parent.children.append(self)  # LEAK

    def grow(self, layer):
        return Node(layer(self.value), self)

    def depth(self):
        return 0 if self.parent is None else 1 + self.parent.depth()


torch.manual_seed(33)
layers = nn.ModuleList(nn.Sequential(nn.Linear(150, 150), nn.Tanh()) for _ in range(4))
opt = torch.optim.SGD(layers.parameters(), 0.05)
for step in range(80):
    root = Node(torch.randn(120, 150))
    node = root
    for layer in layers:
        node = node.grow(layer)
    loss = (node.value - root.value.flip(1)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 19:
        print(step + 1, node.depth(), f"{loss.item():.4f}")
