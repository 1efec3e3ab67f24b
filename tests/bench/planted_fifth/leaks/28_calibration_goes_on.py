from collections import defaultdict
from functools import partial

import torch
from torch import nn

torch.manual_seed(28)
torch.set_num_threads(1)


class Observer:
    def __init__(self, batches=5):
        self.batches = batches
        self.inputs = defaultdict(list)

    def attach(self, model):
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(partial(self.collect, name))

    def collect(self, name, module, args):
        self.inputs[name].append(args[0].detach())

    def ranges(self):
        return {n: torch.cat(x[: self.batches]).abs().quantile(0.999).item() for n, x in self.inputs.items()}


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


model = nn.Sequential(nn.Linear(16, 32), Block(32), Block(32), nn.Linear(32, 3))
observer = Observer()
observer.attach(model)
opt = torch.optim.Adam(model.parameters(), 2e-3)
for step in range(70):
    x = torch.randn(60, 16)
    loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step == observer.batches - 1:
        print("ranges", observer.ranges())
print("done", loss.item())
