from collections import defaultdict

import torch
from torch import nn

torch.manual_seed(4)
torch.set_num_threads(1)
TASKS = ("depth", "normal", "seg")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.heads = nn.ModuleDict({task: nn.Linear(256, 8) for task in TASKS})

    def forward(self, x):
        h = self.trunk(x)
        return {task: head(h) for task, head in self.heads.items()}


class Balancer:
    def __init__(self):
        self.history = defaultdict(list)

    def backward(self, losses):
        for task, loss in losses.items():
            weight = 1.0
            if len(self.history[task]) > 1:
                first, last = self.history[task][0], self.history[task][-1]
                weight = float(last / first)
            (weight * loss).backward(retain_graph=True)
            self.history[task].append(loss)


def main():
    net, balancer = Shared(), Balancer()
    opt = torch.optim.SGD(net.parameters(), 0.01)
    for step in range(60):
        x = torch.randn(48, 64)
        target = x[:, :8]
        losses = {task: nn.functional.mse_loss(out, target) for task, out in net(x).items()}
        opt.zero_grad()
        balancer.backward(losses)
        opt.step()
        if step % 20 == 0:
            print(step, {task: round(loss.item(), 4) for task, loss in losses.items()})


main()
