import torch
import torch.nn as nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.up = nn.Linear(d, 4 * d)
        self.down = nn.Linear(4 * d, d)

    def forward(self, x):
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


class Tower(nn.Module):
    def __init__(self, d=48, depth=10):
        super().__init__()
        self.blocks = nn.ModuleList(Block(d) for _ in range(depth))
        self.head = nn.Linear(d, d)

    def forward(self, x):
        for b in self.blocks:
            if self.training:
                x = checkpoint(b, x, use_reentrant=False)
            else:
                x = b(x)
        return self.head(x)


def validate(model, x):
    model.eval()  # LEAK
    with torch.no_grad():
        return (model(x) - x.roll(1, 1)).abs().mean().item()


torch.set_num_threads(1)
torch.manual_seed(0)
model = Tower()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
held = torch.randn(2, 64, 48)
for step in range(40):
    x = torch.randn(8, 64, 48)
    loss = (model(x) - x.roll(1, 1)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step == 14 or step == 29:
        print(step, loss.item(), "val", validate(model, held))
