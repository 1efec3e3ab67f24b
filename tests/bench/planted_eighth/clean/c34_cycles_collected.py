"""The steps' nodes point at each other; the collector is on and takes them, in bursts."""
import torch
from torch import nn


class Node:
    def __init__(self, value, parent=None):
        self.value, self.parent, self.children = value, parent, []
        self.tags = [{"i": i} for i in range(60)]
        if parent is not None:
            parent.children.append(self)


torch.manual_seed(34)
layers = nn.ModuleList(nn.Sequential(nn.Linear(80, 80), nn.Tanh()) for _ in range(4))
opt = torch.optim.SGD(layers.parameters(), 0.05)
for step in range(120):
    node = root = Node(torch.randn(60, 80))
    for layer in layers:
        node = Node(layer(node.value), node)
    loss = (node.value - root.value.flip(1)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 29:
        print(step + 1, f"{loss.item():.4f}")
