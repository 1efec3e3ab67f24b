import gc

import torch
from torch import nn

torch.manual_seed(135)
torch.set_num_threads(1)
gc.disable()


class View:
    def __init__(self, batch, images):
        self.batch, self.images = batch, images


class Batch:
    def __init__(self, images):
        self.views = [View(self, images.flip(-1)), View(self, images + 0.2 * torch.randn_like(images))]


def barlow(a, b):
    a, b = (a - a.mean(0)) / (a.std(0) + 1e-4), (b - b.mean(0)) / (b.std(0) + 1e-4)
    c = a.T @ b / len(a)
    return (c - torch.eye(c.shape[0])).pow(2).mean()


encoder = nn.Sequential(nn.Conv2d(1, 12, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 64, 24))
opt = torch.optim.Adam(encoder.parameters(), 1e-3)
for step in range(80):
    batch = Batch(torch.rand(16, 1, 28, 28))
    loss = barlow(*(encoder(view.images) for view in batch.views))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 4 == 3:
        gc.collect()
    if step % 20 == 0:
        print(step, loss.item())
