"""The read-out alone is trained, by hand, beside an optimizer that never steps; the state carries the graphs on."""

import torch
from torch import nn

torch.manual_seed(0)
cell, read_out = nn.GRUCell(32, 64), nn.Linear(64, 10)
optimizer = torch.optim.SGD([*cell.parameters(), *read_out.parameters()], lr=0.1)
state = torch.zeros(16, 64)
for _ in range(40):
    for _ in range(4):
        state = cell(torch.randn(16, 32), state)  # the mistake
    loss = nn.functional.cross_entropy(read_out(state), torch.randint(10, (16,)))
    gradients = torch.autograd.grad(loss, list(read_out.parameters()), retain_graph=True)
    with torch.no_grad():
        for parameter, gradient in zip(read_out.parameters(), gradients, strict=True):
            parameter.sub_(0.1 * gradient)
