"""Under a budget: a look at the samples leaves the model in evaluation mode, in which no layer is checkpointed."""

import torch
from torch.utils.checkpoint import checkpoint


class Deep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(128, 128) for _ in range(24))

    def forward(self, rows):
        for layer in self.layers:
            if self.training:
                rows = checkpoint(lambda x, layer=layer: layer(x).tanh().sin(), rows, use_reentrant=False)
            else:
                rows = layer(rows).tanh().sin()
        return rows


def look(model, rows):
    model.eval()  # the mistake
    with torch.no_grad():
        return model(rows).mean().item()


torch.manual_seed(0)
model = Deep()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(24):
    rows = torch.randn(512, 128)
    model(rows).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    if step == 9:
        look(model, rows[:8])
