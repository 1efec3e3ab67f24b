import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(4)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    def __init__(self, vocab=400, dim=96, layers=3):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList([Block(dim, 4) for _ in range(layers)])
        self.head = nn.Linear(dim, 5)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class ActivationStats:
    """Norm of the residual stream per block, for the interpretability page."""

    def __init__(self, model):
        self.cache = {}
        for index, block in enumerate(model.blocks):
            block.register_forward_hook(self.make_hook(f"blocks.{index}"))

    def make_hook(self, name):
        def hook(module, args, output):
            self.cache.setdefault(name, []).append(output.detach())

        return hook

    def summary(self):
        return {name: round(acts[-1].norm(dim=-1).mean().item(), 3) for name, acts in self.cache.items()}


model = Encoder().to(device)
stats = ActivationStats(model)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(50):
    ids = torch.randint(0, 400, (4, 40), device=device)
    target = torch.randint(0, 5, (4,), device=device)
    loss = nn.functional.cross_entropy(model(ids), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, round(loss.item(), 3), stats.summary())
