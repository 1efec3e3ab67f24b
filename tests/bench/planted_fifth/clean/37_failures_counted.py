from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

torch.manual_seed(137)
torch.set_num_threads(1)


def simulate(seed):
    field = torch.rand(72, 72, generator=torch.Generator().manual_seed(seed))
    for _ in range(4):
        field = field + 0.2 * (field.roll(1, 0) + field.roll(-1, 0) - 2 * field)
    if seed % 2:
        raise ArithmeticError(f"diverged, seed {seed % 4}")
    return field.mean(0), field.std(0)


def main():
    net, failures = nn.Sequential(nn.Linear(72, 96), nn.ReLU(), nn.Linear(96, 72)), Counter()
    opt = torch.optim.Adam(net.parameters(), 1e-3)
    with ThreadPoolExecutor(max_workers=2) as pool:
        for r in range(60):
            jobs = [pool.submit(simulate, 4 * r + i) for i in range(4)]
            failures.update(str(job.exception()) for job in jobs if job.exception() is not None)
            x, y = map(torch.stack, zip(*(job.result() for job in jobs if job.exception() is None)))
            loss = nn.functional.mse_loss(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            if r % 20 == 0:
                print(r, loss.item())
    print(failures)


main()
