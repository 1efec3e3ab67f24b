import torch
from torch import nn

torch.manual_seed(144)
torch.set_num_threads(1)


class Callbacks:
    def __init__(self):
        self.functions = {}

    def register(self, name, function):
        self.functions[name] = function

    def finish(self):
        for function in self.functions.values():
            function()


net = nn.Sequential(nn.Linear(48, 224), nn.ReLU(), nn.Linear(224, 48))
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=6)
callbacks = Callbacks()
for step in range(96):
    x = torch.randn(64, 48)
    loss = nn.functional.mse_loss(net(x), x.sort(1).values)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    callbacks.register("report", lambda: print("last rate", schedule.get_last_lr()))
    if step % 24 == 0:
        print(step, loss.item())
callbacks.finish()
