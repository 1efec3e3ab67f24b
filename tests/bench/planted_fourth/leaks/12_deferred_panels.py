import math

import torch
from torch import nn

torch.manual_seed(14)
torch.set_num_threads(1)


class Board:
    def __init__(self):
        self.pending = []
        self.lines = []

    def later(self, job):
        self.pending.append(job)

    def close(self):
        for job in self.pending:
            self.lines.append(job())
        self.pending.clear()


def ascii_panel(spec):
    rows = nn.functional.adaptive_avg_pool2d(spec[None], (4, 16))[0]
    return "\n".join("".join(" .:-=+*#"[min(7, int(v * 7))] for v in row) for row in rows.clamp(0, 1))


def tones(n, frames=120, bins=80):
    t = torch.arange(frames) / frames
    f = torch.rand(n, bins, 1) * 6
    return torch.sin(2 * math.pi * f * t).abs()


decoder = nn.Sequential(nn.Conv1d(80, 96, 5, padding=2), nn.Tanh(), nn.Conv1d(96, 80, 5, padding=2))
opt = torch.optim.Adam(decoder.parameters(), 1e-3)
board = Board()
for step in range(50):
    target = tones(6)
    out = decoder(target + 0.2 * torch.randn_like(target))
    loss = nn.functional.l1_loss(out, target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    pair = torch.cat([out.detach()[0], target[0]], dim=1)
    board.later(lambda pair=pair, step=step: f"{step}\n{ascii_panel(pair)}")
    if step % 25 == 0:
        print(step, loss.item())
board.close()
print(len(board.lines), "panels")
