import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SoftClip(torch.autograd.Function):
    """y = tanh(x / k) * k with a gradient written from the output."""

    @staticmethod
    def forward(ctx, x, k):
        y = torch.tanh(x / k) * k
        ctx.k = k
        ctx.y = y
        return y

    @staticmethod
    def backward(ctx, grad_out):
        return grad_out * (1 - (ctx.y / ctx.k) ** 2), None


class Block(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.conv = nn.Conv1d(ch, ch, 5, padding=2)
        self.norm = nn.GroupNorm(4, ch)

    def forward(self, x):
        return x + SoftClip.apply(self.norm(self.conv(x)), 3.0)


class KeywordNet(nn.Module):
    def __init__(self, mels=40, ch=48, classes=12):
        super().__init__()
        self.stem = nn.Conv1d(mels, ch, 3, padding=1)
        self.blocks = nn.Sequential(Block(ch), Block(ch))
        self.head = nn.Linear(ch, classes)

    def forward(self, mel):
        return self.head(self.blocks(self.stem(mel)).mean(-1))


def batches(count, batch=16, frames=100):
    for _ in range(count):
        yield torch.randn(batch, 40, frames, device=device), torch.randint(0, 12, (batch,), device=device)


def main():
    model = KeywordNet().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    running = 0.0
    for step, (mel, label) in enumerate(batches(60), start=1):
        loss = F.cross_entropy(model(mel), label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running += loss.item()
        if step % 20 == 0:
            print(f"step {step} loss {running / 20:.4f}")
            running = 0.0


if __name__ == "__main__":
    main()
