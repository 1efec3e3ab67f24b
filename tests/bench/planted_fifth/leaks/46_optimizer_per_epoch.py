from functools import partial

import torch
from torch import nn

torch.manual_seed(46)
torch.set_num_threads(1)


class Callbacks:
    def __init__(self):
        self.on_end = []

    def register(self, function):
        self.on_end.append(function)

    def finish(self):
        for function in self.on_end[-2:]:
            function()


def report(optimizer, cycle):
    moments = [s["exp_avg"].norm().item() for s in optimizer.state.values()]
    print("cycle", cycle, "mean moment", sum(moments) / len(moments))


def cycle_steps(net, optimizer, schedule, steps):
    for _ in range(steps):
        x = torch.randn(64, 48)
        loss = nn.functional.mse_loss(net(x), x.sort(1).values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return loss.item()


net = nn.Sequential(nn.Linear(48, 224), nn.ReLU(), nn.Linear(224, 48))
callbacks = Callbacks()
for cycle in range(16):
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    callbacks.register(partial(report, optimizer, cycle))
    print(cycle, cycle_steps(net, optimizer, schedule, 6))
callbacks.finish()
