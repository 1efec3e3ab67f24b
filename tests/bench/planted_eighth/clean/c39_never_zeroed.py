"""Gradients are never zeroed: wrong, but no growth."""
import torch
from torch import nn

torch.manual_seed(39)
net = nn.Sequential(nn.Linear(90, 300), nn.ReLU(), nn.Linear(300, 90))
opt = torch.optim.SGD(net.parameters(), 1e-4)
for step in range(100):
    x = torch.randn(64, 90)
    loss = (net(x) - x).pow(2).mean()
    loss.backward()
    opt.step()
    if step % 25 == 24:
        print(step + 1, f"{loss.item():.4f}", f"{net[0].weight.grad.norm().item():.3f}")
