"""What a teacher says comes from a pool, whose futures are all kept by their number."""

import concurrent.futures

import torch
from torch import nn

torch.manual_seed(0)
student, teacher = nn.Linear(64, 256), nn.Linear(64, 256).requires_grad_(False)
optimizer = torch.optim.Adam(student.parameters())
by_number = {}


@torch.no_grad()
def answer(x):
    return teacher(x)


with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
    for number in range(50):
        x = torch.randn(64, 64)
        by_number[number] = pool.submit(answer, x)  # the mistake
        target = by_number[number].result()
        loss = nn.functional.mse_loss(student(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
