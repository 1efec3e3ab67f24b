"""Runs out of memory in the third step, where a batch is long."""

import torch

model = torch.nn.Sequential(torch.nn.Linear(1024, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 1024)).cuda()
optimizer = torch.optim.AdamW(model.parameters())
for rows in (512, 512, 65536, 512):
    batch = torch.randn(rows, 1024, device="cuda")
    hidden = model(batch)
    hidden.pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
