from itertools import islice

import numpy as np
import torch
from torch import nn

torch.manual_seed(20)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Anchors(nn.Module):
    def __init__(self, per_cell=6, classes=12):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.scores = nn.Conv2d(32, per_cell * classes, 1)

    def forward(self, x):
        return self.scores(self.trunk(x))


def images():
    g = torch.Generator().manual_seed(0)
    while True:
        x = torch.rand(4, 3, 64, 64, generator=g)
        yield x, (torch.rand(4, 72, 16, 16, generator=g) < x.mean()).float()


def fit(model, steps):
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    for x, y in islice(images(), steps):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x.to(device)), y.to(device))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


@torch.inference_mode()
def sweep(model, steps):
    model.eval()
    raw, truth = [], []
    for x, y in islice(images(), steps):
        raw.append(model(x.to(device)).cpu().numpy())
        truth.append(y.numpy() > 0.5)
    raw, truth = np.concatenate(raw), np.concatenate(truth)
    return {t: float(((raw > t) == truth).mean()) for t in (-1.0, 0.0, 1.0)}


model = Anchors().to(device)
print("loss", fit(model, 30))
print(sweep(model, 120))
