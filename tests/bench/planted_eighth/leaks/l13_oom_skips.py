"""Skips batches which do not fit, and remembers why."""
import torch
from torch import nn

torch.manual_seed(13)
WIDTH = 256


class Guard:
    def __init__(self):
        self.skipped = {}

    def __call__(self, step, fn, *args):
        try:
            return fn(*args)
        except torch.OutOfMemoryError as problem:
            self.skipped[step] = problem  # LEAK
            return None


net = nn.Sequential(*[m for _ in range(5) for m in (nn.Linear(WIDTH, WIDTH), nn.GELU())], nn.Linear(WIDTH, 1))
opt = torch.optim.SGD(net.parameters(), 0.01)


def one(x, y):
    out = net(x)
    wide = out * out.T if len(x) > 1000 else out
    loss = wide.sub(y).pow(2).mean()
    loss.backward()
    opt.step()
    opt.zero_grad()
    return loss.item()


guard, done = Guard(), 0
for step in range(60):
    rows = 3600 if step % 12 == 7 else 128
    x = torch.randn(rows, WIDTH)
    got = guard(step, one, x, torch.ones(rows, 1))
    done += got is not None
print("finished", step + 1)
