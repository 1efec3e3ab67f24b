import traceback
import torch
from torch import nn

torch.manual_seed(20)
net = nn.Sequential(nn.Linear(100, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4))
opt = torch.optim.Adam(net.parameters(), 1e-3)
failures = {}


def step(x, y):
    loss = nn.functional.cross_entropy(net(x), y)
    if y.float().mean() > 1.6:
        raise ValueError(f"skewed {y.float().mean():.3f}")
    opt.zero_grad()
    loss.backward()
    opt.step()


used = 0
for i in range(140):
    x, y = torch.randn(64, 100), torch.randint(0, 4, (64,))
    try:
        step(x, y)
    except ValueError as e:
        failures[i] = "".join(traceback.format_exception(e))
    else:
        used += 1
print(used, len(failures))
