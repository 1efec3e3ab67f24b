"""Layers are unfrozen from the top, one each epoch, until 5 of 10 epochs; their gradients and Adam states come then."""
import torch
from torch import nn

torch.manual_seed(31)
blocks = nn.ModuleList(nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(5))
head = nn.Linear(256, 10)
for b in blocks:
    b.requires_grad_(False)
opt = torch.optim.Adam(head.parameters(), 1e-3)
X = torch.randn(480, 256)
Y = X[:, :10].argmax(1)
for epoch in range(10):
    if epoch < len(blocks):
        block = blocks[-1 - epoch]
        block.requires_grad_(True)
        opt.add_param_group({"params": list(block.parameters()), "lr": 3e-4})
    for i in torch.randperm(480).split(48):
        h = X[i]
        for b in blocks:
            h = b(h)
        loss = nn.functional.cross_entropy(head(h), Y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, len(opt.param_groups), f"{loss.item():.4f}")
