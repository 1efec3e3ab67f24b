"""Parameters updated through `.data`, after two passes each: older code does it so."""

import torch

torch.manual_seed(0)
first = torch.randn(64, 512, requires_grad=True)
second = torch.randn(512, 8, requires_grad=True)
history = []
for _ in range(20):
    for _ in range(2):
        loss = (torch.randn(32, 64) @ first).clamp(min=0).matmul(second).pow(2).mean()
        loss.backward()
    history.append(loss.item())
    for parameter in (first, second):
        parameter.data -= 1e-3 * parameter.grad.data
        parameter.grad.data.zero_()
