"""Denoiser with activation checkpointing; validation puts the model back into training mode."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class ResBlock(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.conv1 = nn.Conv2d(ch, ch, 3, padding=1)
        self.conv2 = nn.Conv2d(ch, ch, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(x)))


class Denoiser(nn.Module):
    def __init__(self, ch=12, depth=6):
        super().__init__()
        self.inp = nn.Conv2d(3, ch, 3, padding=1)
        self.blocks = nn.ModuleList([ResBlock(ch) for _ in range(depth)])
        self.out = nn.Conv2d(ch, 3, 3, padding=1)

    def forward(self, x):
        h = self.inp(x)
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False) if self.training else block(h)
        return self.out(h)


def pairs(n):
    clean = torch.rand(n, 3, 24, 24, device=device)
    return clean, clean + 0.1 * torch.randn_like(clean)


def validate(model):
    was_training = model.training
    model.eval()
    with torch.no_grad():
        clean, noisy = pairs(4)
        value = -10 * torch.log10(F.mse_loss(model(noisy), clean)).item()
    model.train(was_training)
    return value


torch.manual_seed(0)
model = Denoiser().to(device)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(1, 37):
    clean, noisy = pairs(4)
    loss = F.l1_loss(model(noisy), clean)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 9 == 0:
        print(f"step {step} loss {loss.item():.4f} psnr {validate(model):.2f}")
