from contextlib import contextmanager

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(34)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Encoder(nn.Module):
    def __init__(self, vocab=400, dim=96, layers=3):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True) for _ in range(layers)]
        )
        self.head = nn.Linear(dim, 5)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


@contextmanager
def recorded(modules):
    cache, handles = {}, []

    def hook_for(name):
        def hook(module, args, output):
            cache[name] = output.detach()

        return hook

    for name, module in modules:
        handles.append(module.register_forward_hook(hook_for(name)))
    try:
        yield cache
    finally:
        for handle in handles:
            handle.remove()


def step(model, optimizer):
    ids = torch.randint(0, 400, (4, 40), device=device)
    target = torch.randint(0, 5, (4,), device=device)
    loss = nn.functional.cross_entropy(model(ids), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


model = Encoder().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
norms = []
for index in range(45):
    with recorded(list(model.blocks.named_children())) as cache:
        loss = step(model, optimizer)
        norms.append([a.norm(dim=-1).mean().item() for a in cache.values()])
    if index % 15 == 14:
        print(index, round(loss, 3), [round(x, 2) for x in norms[-1]])
