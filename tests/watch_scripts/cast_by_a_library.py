"""A frozen encoder in 16 bits is cast to 32: the casting line is PyTorch's, the call this script's."""

import torch
from torch import nn

torch.manual_seed(0)


def freeze(encoder):
    encoder.requires_grad_(False)
    return encoder.float()  # the mistake


encoder = freeze(nn.Sequential(*[nn.Linear(512, 512, dtype=torch.bfloat16) for _ in range(6)]))
head = nn.Linear(512, 4)
optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
for _ in range(4):
    with torch.no_grad():
        features = encoder(torch.randn(8, 512))
    head(features).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
