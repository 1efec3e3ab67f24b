"""Classifier fed by a thread pool that decodes and augments images; bad files are skipped and reported."""

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def decode(index, size=96):
    gen = torch.Generator().manual_seed(index)
    image = torch.rand(3, size, size, generator=gen)
    if index % 9 == 4:
        image[:, size // 2 :] = float("nan")
    return image, index % 4


def augment(index):
    image, label = decode(index)
    flipped = image.flip(-1) if index % 2 else image
    bright = flipped * (0.8 + 0.4 * (index % 5) / 5)
    if not torch.isfinite(bright).all():
        raise ValueError(f"file {index}: corrupt pixels")
    return F.avg_pool2d(bright, 3), label


class Loader:
    def __init__(self, n, batch, workers=2):
        self.n, self.batch = n, batch
        self.pool = ThreadPoolExecutor(workers)
        self.skipped = []

    def __iter__(self):
        for start in range(0, self.n, self.batch):
            jobs = [self.pool.submit(augment, i) for i in range(start, start + self.batch)]
            images, labels = [], []
            for job in jobs:
                if job.exception() is not None:
                    self.skipped.append(job)
                    continue
                image, label = job.result()
                images.append(image)
                labels.append(label)
            yield torch.stack(images).to(device), torch.tensor(labels, device=device)

    def close(self):
        self.pool.shutdown()
        for job in self.skipped:
            print("skipped", job.exception())


torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU())
model.extend([nn.Flatten(), nn.Linear(784, 4)]).to(device)
opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
loader = Loader(n=324, batch=9)
for step, (images, labels) in enumerate(loader):
    loss = F.cross_entropy(model(images), labels)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 9 == 0:
        print(f"step {step} loss {loss.item():.4f}")
loader.close()
