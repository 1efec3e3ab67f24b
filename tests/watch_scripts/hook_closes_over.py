"""Each step registers a hook that multiplies by the step's own mask, and none is removed."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def blank(mask):
    def multiply(module, inputs, output):
        return output * mask

    model[0].register_forward_hook(multiply)  # the mistake


for _ in range(40):
    blank((torch.rand(64, 64) > 0.1).float())
    optimizer.zero_grad()
    model(torch.randn(64, 32)).pow(2).mean().backward()
    optimizer.step()
