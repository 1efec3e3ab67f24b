"""Keyword spotting on log-mel frames with a hand-written swish activation."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SwishFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        sig = torch.sigmoid(x)
        out = x * sig
        ctx.sig = sig
        ctx.out = out
        return out

    @staticmethod
    def backward(ctx, grad):
        return grad * (ctx.sig + ctx.out * (1 - ctx.sig))


class Swish(nn.Module):
    def forward(self, x):
        return SwishFunction.apply(x)


class SeparableBlock(nn.Module):
    def __init__(self, ch, kernel=9):
        super().__init__()
        self.depth = nn.Conv1d(ch, ch, kernel, padding=kernel // 2, groups=ch)
        self.point = nn.Conv1d(ch, ch, 1)
        self.norm = nn.BatchNorm1d(ch)
        self.act = Swish()

    def forward(self, x):
        return x + self.act(self.norm(self.point(self.depth(x))))


class KeywordNet(nn.Module):
    def __init__(self, n_mels=40, ch=48, classes=10):
        super().__init__()
        self.stem = nn.Conv1d(n_mels, ch, 5, padding=2)
        self.blocks = nn.Sequential(SeparableBlock(ch), SeparableBlock(ch))
        self.head = nn.Linear(ch, classes)

    def forward(self, mel):
        return self.head(self.blocks(self.stem(mel)).mean(dim=2))


def utterances(batch, frames=98):
    label = torch.randint(10, (batch,), device=device)
    mel = torch.randn(batch, 40, frames, device=device)
    mel[torch.arange(batch), label * 4] += 1.5
    return mel, label


torch.manual_seed(0)
model = KeywordNet().to(device)
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for step in range(50):
    mel, label = utterances(12)
    loss = F.cross_entropy(model(mel), label)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(f"step {step} loss {loss.item():.4f}")
