"""Activations that are computed again, with dropout, in both ways of torch.utils.checkpoint."""

import torch
from digest import show
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

torch.manual_seed(0)
layers = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Dropout(0.2)) for _ in range(4)))
head = torch.nn.Linear(16, 1)
optimizer = torch.optim.Adam([*layers.parameters(), *head.parameters()])
for step in range(6):
    inputs = torch.randn(4, 16, requires_grad=True)
    hidden = checkpoint(layers[0], inputs, use_reentrant=False)
    hidden = checkpoint(layers[1], hidden, use_reentrant=True)
    hidden = checkpoint_sequential(layers[2:], 2, hidden, use_reentrant=False)
    loss = head(hidden).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item(), inputs.grad.sum().item())
show(layers, head)
