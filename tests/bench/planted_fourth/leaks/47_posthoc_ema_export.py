import copy
import tempfile
from pathlib import Path

import torch
from torch import nn


class PostHocEMA:
    def __init__(self, model, folder, decay=0.97, dtype=torch.float64):
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.folder, self.decay, self.dtype = Path(folder), decay, dtype
        self.step = 0

    @torch.no_grad()
    def update(self, model):
        self.step += 1
        for e, p in zip(self.ema.parameters(), model.parameters()):
            e.lerp_(p, 1 - self.decay)
        if self.step % 15 == 0:
            self.checkpoint()

    def checkpoint(self):
        package = copy.deepcopy(self.ema).to(self.dtype).state_dict()
        torch.save(package, self.folder / f"{self.step}.pt")


class Score(nn.Module):
    def __init__(self, d=32, width=512):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, d))

    def forward(self, x, t):
        return self.net(torch.cat([x, t], 1))


def main():
    torch.manual_seed(56)
    torch.set_num_threads(1)
    model = Score()
    opt = torch.optim.SGD(model.parameters(), 1e-2)
    with tempfile.TemporaryDirectory() as folder:
        ema = PostHocEMA(model, folder)
        for step in range(45):
            t = torch.rand(32, 1)
            x = torch.randn(32, 32) * 0.3 + 1
            noise = torch.randn_like(x)
            loss = (model(x + t * noise, t) - noise).pow(2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            ema.update(model)
        print(loss.item(), sorted(p.name for p in ema.folder.iterdir()))


main()
