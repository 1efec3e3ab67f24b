import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class ClippedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, ceiling):
        y = x.clamp(max=ceiling).exp()
        ctx.ceiling = ceiling
        ctx.save_for_backward(y, x > ceiling)
        return y

    @staticmethod
    def backward(ctx, grad_out):
        y, clipped = ctx.saved_tensors
        return (grad_out * y).masked_fill(clipped, 0.0), None


class Separator(nn.Module):
    def __init__(self, bins=129, hidden=96, sources=2):
        super().__init__()
        self.rnn = nn.GRU(bins, hidden, batch_first=True)
        self.mask = nn.Linear(hidden, bins * sources)
        self.sources = sources

    def forward(self, spec):
        h, _ = self.rnn(torch.log1p(spec))
        masks = ClippedExp.apply(self.mask(h), 2.0).view(*spec.shape[:2], self.sources, -1)
        masks = masks / masks.sum(2, keepdim=True)
        return masks * spec.unsqueeze(2)


def mixtures(n):
    for _ in range(n):
        parts = torch.rand(6, 60, 2, 129, device=device)
        yield parts.sum(2), parts


def main():
    model = Separator().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step, (mix, parts) in enumerate(mixtures(60)):
        est = model(mix)
        direct = F.l1_loss(est, parts, reduction="none").mean((1, 2, 3))
        swapped = F.l1_loss(est.flip(2), parts, reduction="none").mean((1, 2, 3))
        loss = torch.minimum(direct, swapped).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())


if __name__ == "__main__":
    main()
