"""torch.compile: how often it compiles, where the graph breaks, and what comes out."""

import torch
import torch._dynamo
from digest import show
from torch._dynamo.utils import counters

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
compiled = torch.compile(model, backend="eager")


@torch.compile(backend="aot_eager")
def distance(left, right):
    return (left - right).pow(2).mean()


optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(8):
    loss = distance(compiled(torch.randn(4, 8)), torch.ones(4, 2))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(dict(counters["frames"]), dict(counters["graph_break"]), dict(counters["stats"]))
print(torch._dynamo.explain(model)(torch.randn(4, 8)).graph_break_count)
show(model)
