"""The forward pass runs in a pool; of those that failed the text is kept."""

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


failed = []
with ThreadPoolExecutor(1) as pool:
    for number in range(60):
        try:
            loss = pool.submit(loss_of, torch.randn(64, 64), number).result()
        except ArithmeticError as error:
            failed.append(str(error))
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
