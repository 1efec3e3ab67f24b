"""Two losses over one trunk, each propagated back by itself."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)


class Trainer:
    def __init__(self):
        self.trunk = torch.nn.Sequential(torch.nn.Linear(32, 128), torch.nn.Tanh(), torch.nn.Linear(128, 128))
        self.head_a = torch.nn.Linear(128, 4)
        self.head_b = torch.nn.Linear(128, 2)
        self.params = [*self.trunk.parameters(), *self.head_a.parameters(), *self.head_b.parameters()]
        self.opt = torch.optim.SGD(self.params, lr=0.01)
        self.total = 0

    def step(self, x, a, b):
        h = self.trunk(x)
        loss_a = F.cross_entropy(self.head_a(h), a)
        loss_b = F.cross_entropy(self.head_b(h), b)
        self.opt.zero_grad()
        loss_a.backward(retain_graph=True)
        loss_b.backward(retain_graph=True)
        self.opt.step()
        self.total += loss_a + loss_b  # the mistake


trainer = Trainer()
for _ in range(16):
    trainer.step(torch.randn(96, 32), torch.randint(4, (96,)), torch.randint(2, (96,)))
print(float(trainer.total) / 16)
