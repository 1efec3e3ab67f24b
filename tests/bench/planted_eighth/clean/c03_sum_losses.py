"""total = total + loss, each loss backwarded (catalogue: does not leak)."""
import torch
from torch import nn

torch.manual_seed(3)
net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 256, 10))
opt = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
total = 0
every = []
for k in range(80):
    x, y = torch.randn(32, 3, 16, 16), torch.randint(0, 10, (32,))
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    total = total + loss
    every.append(loss)
    if k % 20 == 19:
        print(k + 1, f"{total.item() / (k + 1):.4f}")
