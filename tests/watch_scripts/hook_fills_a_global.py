"""A hook of a factory appends to a dictionary of lists that the module has."""

import torch

activations: dict[str, list[torch.Tensor]] = {}


def recorder(name):
    activations[name] = []

    def record(module, inputs, output):
        activations[name].append(output.detach())  # the mistake

    return record


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8))
model[0].register_forward_hook(recorder("first"))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(24):
    optimizer.zero_grad()
    model(torch.randn(32, 64)).mean().backward()
    optimizer.step()
