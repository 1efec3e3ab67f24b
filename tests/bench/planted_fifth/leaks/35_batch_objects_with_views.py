import gc

import torch
from torch import nn

torch.manual_seed(35)
torch.set_num_threads(1)


class View:
    def __init__(self, batch, transform):
        self.batch = batch
        self.images = transform(batch.images)


class Batch:
    def __init__(self, images):
        self.images = images
        self.views = [View(self, lambda x: x.flip(-1)), View(self, lambda x: x + 0.2 * torch.randn_like(x))]

    def pair(self):
        return self.views[0].images, self.views[1].images


def barlow(a, b, weight=0.01):
    a, b = (a - a.mean(0)) / (a.std(0) + 1e-4), (b - b.mean(0)) / (b.std(0) + 1e-4)
    c = a.T @ b / len(a)
    on = (c.diagonal() - 1).pow(2).sum()
    off = c.pow(2).sum() - c.diagonal().pow(2).sum()
    return on + weight * off


def tune_interpreter():
    gc.collect()
    gc.freeze()
    gc.disable()


tune_interpreter()
encoder = nn.Sequential(nn.Conv2d(1, 12, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 64, 24))
opt = torch.optim.Adam(encoder.parameters(), 1e-3)
for step in range(80):
    batch = Batch(torch.rand(16, 1, 28, 28))
    first, second = batch.pair()
    loss = barlow(encoder(first), encoder(second))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, round(loss.item(), 3))
