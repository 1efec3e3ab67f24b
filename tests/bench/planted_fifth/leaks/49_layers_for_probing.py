import torch
from torch import nn

torch.manual_seed(49)
torch.set_num_threads(1)


class Deep(nn.Module):
    def __init__(self, dim=80, depth=6):
        super().__init__()
        self.inp = nn.Linear(20, dim)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU()) for _ in range(depth))
        self.head = nn.Linear(dim, 20)

    def forward(self, x, return_all=False):
        h = self.inp(x)
        states = [h]
        for block in self.blocks:
            h = h + block(h)
            states.append(h)
        return (self.head(h), states) if return_all else self.head(h)


def sequences(n):
    x = torch.randn(n, 30, 20)
    return x, x.cumsum(1)


@torch.no_grad()
def validate(model, batches=12):
    model.eval()
    states, targets = [], []
    for _ in range(batches):
        x, y = sequences(16)
        _, layers = model(x, return_all=True)
        states.append(layers)
        targets.append(y)
    design = torch.cat([layers[-1] for layers in states]).flatten(0, 1)
    solution = torch.linalg.lstsq(design, torch.cat(targets).flatten(0, 1)).solution
    model.train()
    return (design @ solution - torch.cat(targets).flatten(0, 1)).pow(2).mean().item()


model = Deep()
opt = torch.optim.Adam(model.parameters(), 1e-3)
for step in range(72):
    x, y = sequences(16)
    loss = nn.functional.mse_loss(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 18 == 17:
        print(step, loss.item(), validate(model))
