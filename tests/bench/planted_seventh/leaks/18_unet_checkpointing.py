"""Residual denoiser trained with activation checkpointing."""

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
        self.norm = nn.GroupNorm(4, ch)

    def forward(self, x):
        return x + self.conv2(F.silu(self.norm(self.conv1(x))))


class Denoiser(nn.Module):
    def __init__(self, ch=16, depth=8, gradient_checkpointing=True):
        super().__init__()
        self.inp = nn.Conv2d(3, ch, 3, padding=1)
        self.blocks = nn.ModuleList([ResBlock(ch) for _ in range(depth)])
        self.out = nn.Conv2d(ch, 3, 3, padding=1)
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x):
        h = self.inp(x)
        for block in self.blocks:
            if self.training and self.gradient_checkpointing:
                h = checkpoint(block, h, use_reentrant=False)
            else:
                h = block(h)
        return self.out(h)


def noisy_batch(n):
    clean = torch.rand(n, 3, 32, 32, device=device)
    return clean, clean + 0.1 * torch.randn_like(clean)


@torch.no_grad()
def psnr(model):
    model.eval()
    clean, noisy = noisy_batch(2)
    return -10 * torch.log10(F.mse_loss(model(noisy), clean)).item()


def main(steps=30, eval_every=15):
    torch.manual_seed(0)
    model = Denoiser().to(device)
    model.train()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, steps + 1):
        clean, noisy = noisy_batch(6)
        loss = F.l1_loss(model(noisy), clean)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % eval_every == 0:
            print(f"step {step} loss {loss.item():.4f} psnr {psnr(model):.2f}")


if __name__ == "__main__":
    main()
