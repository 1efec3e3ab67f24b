"""Thread pool loading in which corrupt samples are skipped and only their messages are kept."""

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def load(index):
    gen = torch.Generator().manual_seed(index)
    image = torch.rand(3, 64, 64, generator=gen)
    if index % 8 == 3:
        image[0, 0, 0] = float("nan")
    if not torch.isfinite(image).all():
        raise ValueError(f"sample {index} has bad pixels")
    return F.avg_pool2d(image, 2), index % 4


def batches(pool, n, size, errors):
    for start in range(0, n, size):
        futures = [pool.submit(load, i) for i in range(start, start + size)]
        good = []
        for future in futures:
            try:
                good.append(future.result())
            except ValueError as err:
                errors.append(str(err))
        images, labels = zip(*good, strict=True)
        yield torch.stack(images).to(device), torch.tensor(labels, device=device)


def main():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(192, 4))
    model.to(device)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    errors = []
    with ThreadPoolExecutor(2) as pool:
        for step, (images, labels) in enumerate(batches(pool, 320, 8, errors)):
            loss = F.cross_entropy(model(images), labels)
            opt.zero_grad()
            loss.backward()
            opt.step()
            if step % 10 == 0:
                print(f"step {step} loss {loss.item():.4f}")
    print(len(errors), "skipped, for example:", errors[0])


if __name__ == "__main__":
    main()
