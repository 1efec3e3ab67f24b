"""A comprehension makes a list of all that each step returns."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 64))
optimizer = torch.optim.AdamW(model.parameters())


def step(batch):
    made = model(batch)
    loss = nn.functional.mse_loss(made, batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss, "made": made}


returned = [step(torch.randn(32, 64)) for _ in range(60)]  # the mistake
print(sum(each["loss"].item() for each in returned))
