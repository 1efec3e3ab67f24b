"""The forward pass runs in a pool; the futures of those that failed are kept, and with them their frames."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def loss_of(x, number):
    out = model(x)
    if number % 3 == 2:
        raise ArithmeticError("it diverged")
    return out.pow(2).mean()


pool, asked = ThreadPoolExecutor(1), []
for number in range(60):
    future = pool.submit(loss_of, torch.randn(64, 64), number)
    asked.append(future)  # the mistake
    try:
        loss = future.result()
    except ArithmeticError:
        continue
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
pool.shutdown()
print(sum(future.exception() is not None for future in asked))
