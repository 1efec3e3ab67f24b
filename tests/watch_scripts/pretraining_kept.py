"""A model is trained, another one takes its weights; the first, its gradients and its optimizer are still there."""

import torch
from torch import nn

torch.manual_seed(0)


def encoder():
    return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512))


first = encoder()  # the mistake
optimizer = torch.optim.AdamW(first.parameters())
for _ in range(6):
    first(torch.randn(8, 256)).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)

second = nn.Sequential(encoder(), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4))
second[0].load_state_dict(first.state_dict())
second_optimizer = torch.optim.AdamW(second.parameters())
for _ in range(6):
    second(torch.randn(8, 256)).pow(2).mean().backward()
    second_optimizer.step()
    second_optimizer.zero_grad()
