import traceback

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Trainer:
    def __init__(self):
        self.model = nn.Sequential(nn.Linear(128, 300), nn.ReLU(), nn.Linear(300, 10)).to(device)
        self.opt = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.errors = []

    def step(self, x, y):
        hidden = self.model[0](x)
        if not torch.isfinite(hidden).all():
            raise ValueError("not finite")
        loss = nn.functional.cross_entropy(self.model[1:](hidden), y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()

    def fit(self, steps):
        for i in range(steps):
            x = torch.randn(64, 128, device=device)
            if i % 4 == 1:
                x[0, 0] = float("nan")
            y = torch.randint(0, 10, (64,), device=device)
            try:
                value = self.step(x, y)
            except ValueError:
                self.errors.append((i, traceback.format_exc(limit=1)))
                continue
            if i % 40 == 0:
                print(i, value, len(self.errors))


Trainer().fit(160)
