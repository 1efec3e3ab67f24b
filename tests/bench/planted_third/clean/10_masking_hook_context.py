import contextlib

import torch
import torch.nn as nn

torch.manual_seed(110)
torch.set_num_threads(1)


class Encoder(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.proj = nn.Linear(16, d)
        self.layer = nn.TransformerEncoderLayer(d, 4, 96, batch_first=True, dropout=0.0)
        self.head = nn.Linear(d, 16)

    def forward(self, x):
        return self.head(self.layer(self.proj(x)))


@contextlib.contextmanager
def masked(model, mask):
    handle = model.proj.register_forward_hook(lambda m, i, o: o * mask)
    try:
        yield model
    finally:
        handle.remove()


def batches(n, b=16, length=40):
    for _ in range(n):
        x = torch.randn(b, length, 16)
        yield x, (torch.rand(b, length, 1) > 0.15).float()


model = Encoder()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for i, (x, keep) in enumerate(batches(80)):
    with masked(model, keep) as m:
        loss = (m(x) - x).pow(2).mean()
        loss.backward()
    opt.step()
    opt.zero_grad()
    if i % 20 == 0:
        print(i, round(loss.item(), 4), len(model.proj._forward_hooks))
