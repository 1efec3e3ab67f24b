"""The nodes of a tree of crops know their parent, and it them: only the collector frees a step's tree."""

import torch


class Node:
    def __init__(self, picture):
        self.picture = picture
        self.children = []

    def add(self, child):
        self.children.append(child)
        child.parent = self  # the mistake


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(160):
    root = Node(torch.randn(16, 3, 32, 32))
    root.add(Node(root.picture[..., ::2, ::2].contiguous()))
    optimizer.zero_grad()
    model(root.children[0].picture).mean().backward()
    optimizer.step()
