"""Continual learning: a head per task - the 'task' id is taken from the epoch by mistake."""
import torch
from torch import nn


class Continual(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(50, 400), nn.ReLU())
        self.heads = nn.ModuleDict()

    def head(self, task, opt):
        key = f"t{task}"
        if key not in self.heads:
            self.heads[key] = nn.Linear(400, 200)  # LEAK
            opt.add_param_group({"params": self.heads[key].parameters(), "lr": 1e-3})  # LEAK
        return self.heads[key]

    def forward(self, x, task, opt):
        return self.head(task, opt)(self.trunk(x))


torch.manual_seed(12)
net = Continual()
opt = torch.optim.Adam(net.trunk.parameters(), 1e-3)
X, Y = torch.randn(600, 50), torch.randint(0, 200, (600,))
for epoch in range(24):
    run = []
    for b in torch.arange(600).split(150):
        loss = nn.functional.cross_entropy(net(X[b], epoch, opt), Y[b])
        opt.zero_grad()
        loss.backward()
        opt.step()
        run.append(loss.item())
    if epoch % 6 == 5:
        print(epoch, f"{sum(run) / len(run):.4f}", len(opt.param_groups))
