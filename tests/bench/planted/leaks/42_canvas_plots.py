import numpy as np
import torch
from torch import nn


class Figure:
    """minimal raster canvas"""
    _open = {}

    def __init__(self, h=240, w=320):
        self.num = len(Figure._open) + 1
        self.pix = np.full((h, w, 3), 255, dtype=np.uint8)
        Figure._open[self.num] = self  # LEAK

    def curve(self, ys, color):
        ys = np.asarray(ys, dtype=float)
        span = np.ptp(ys) or 1.0
        h, w, _ = self.pix.shape
        for k, y in enumerate(ys):
            col = int(k / max(1, len(ys) - 1) * (w - 1))
            self.pix[int((1 - (y - ys.min()) / span) * (h - 1)), col] = color
        return self

    def tobytes(self):
        return self.pix.tobytes()

    def close(self):
        Figure._open.pop(self.num, None)


class Writer:
    def __init__(self):
        self.sizes = []

    def add_figure(self, tag, fig, step):
        self.sizes.append((tag, step, len(fig.tobytes())))


torch.set_num_threads(1)
torch.manual_seed(31)
model = nn.GRU(1, 24, batch_first=True)
head = nn.Linear(24, 1)
opt = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=5e-3)
w = Writer()
losses = []
for step in range(90):
    t = torch.linspace(0, 6.28, 50)[None, :, None] + torch.rand(8, 1, 1) * 6
    y = head(model(t.sin())[0])
    loss = (y[:, :-1] - t.sin()[:, 1:]).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    if step % 2 == 0:
        w.add_figure("pred", Figure().curve(y[0, :, 0].detach().numpy(), (200, 0, 0)), step)
print(losses[0], losses[-1], len(w.sizes))
