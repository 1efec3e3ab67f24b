"""torch.compile with inductor, where there is a compiler."""

import shutil

import torch
from digest import show
from torch._dynamo.utils import counters

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 2))
compiled = torch.compile(model) if shutil.which("g++") else torch.compile(model, backend="aot_eager")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(5):
    loss = compiled(torch.randn(4, 8)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(dict(counters["frames"]), dict(counters["graph_break"]), dict(counters["stats"]))
show(model)
