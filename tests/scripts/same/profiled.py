"""PyTorch's own profiler and its memory accounting, over a loop."""

import torch
from digest import show
from torch.profiler import ProfilerActivity, profile, record_function, schedule
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with profile(activities=[ProfilerActivity.CPU], schedule=schedule(wait=1, warmup=1, active=2)) as profiler:
    for _ in range(4):
        with record_function("training"):
            loss = model(torch.randn(8, 16)).mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        profiler.step()
calls = {event.key: event.count for event in profiler.key_averages() if event.key.startswith("aten::")}
print(sorted(name for name in calls if name in ("aten::addmm", "aten::relu", "aten::mean")))
for _ in range(150):
    optimizer.zero_grad()
    model(torch.randn(8, 16)).mean().backward()
    optimizer.step()
with FlopCounterMode(display=False) as counter:
    for _ in range(120):
        optimizer.zero_grad()
        model(torch.randn(8, 16)).mean().backward()
        optimizer.step()
print(counter.get_total_flops())
show(model)
