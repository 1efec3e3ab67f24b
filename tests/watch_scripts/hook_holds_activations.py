"""Hooks that were put in to look at activations once."""

import torch
from torch import nn

torch.manual_seed(0)


def record_activations(model):
    activations = {}

    def make_hook(name):
        def hook(module, inputs, output):
            activations.setdefault(name, []).append(output.detach())  # the mistake

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(make_hook(name))
    return activations


model = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4))
activations = record_activations(model)
optimizer = torch.optim.Adam(model.parameters())
for _ in range(16):
    x, y = torch.randn(64, 16), torch.randint(4, (64,))
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print({name: values[0].std().item() for name, values in activations.items()})
