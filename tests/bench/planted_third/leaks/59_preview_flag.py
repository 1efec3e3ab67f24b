import torch
import torch.nn as nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(59)
torch.set_num_threads(1)


class ResBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(4, c), nn.Conv2d(c, c, 3, padding=1)
        self.n2, self.c2 = nn.GroupNorm(4, c), nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        h = self.c1(torch.nn.functional.silu(self.n1(x)))
        return x + self.c2(torch.nn.functional.silu(self.n2(h)))


class Denoiser(nn.Module):
    def __init__(self, c=32, depth=5):
        super().__init__()
        self.inp, self.out = nn.Conv2d(3, c, 3, padding=1), nn.Conv2d(c, 3, 3, padding=1)
        self.blocks = nn.ModuleList([ResBlock(c) for _ in range(depth)])
        self.save_memory = True

    def forward(self, x):
        h = self.inp(x)
        for b in self.blocks:
            h = checkpoint(b, h, use_reentrant=False) if self.save_memory else b(h)
        return self.out(h)


@torch.no_grad()
def preview(model, steps=4, tolerance=1e3):
    model.save_memory = False
    x = torch.randn(1, 3, 24, 24)
    for t in range(steps):
        x = x - model(x) / steps
        if x.abs().max() < tolerance:
            return x
    model.save_memory = True
    return x


net = Denoiser()
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
for it in range(16):
    clean = torch.rand(8, 3, 24, 24)
    noise = torch.randn_like(clean)
    loss = (net(clean + noise) - noise).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it == 7:
        print("preview", tuple(preview(net).shape))
    if it % 5 == 0:
        print(it, round(loss.item(), 4))
