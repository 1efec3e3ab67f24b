import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

torch.manual_seed(33)
torch.set_num_threads(1)


class Learner:
    def __init__(self, model):
        self.model = model
        self.schedules = []

    def create_opt(self, lr, steps):
        self.opt = torch.optim.AdamW(self.model.parameters(), lr)
        self.sched = LambdaLR(self.opt, lambda s: min(1.0, (s + 1) / 4) * (1 - s / (steps + 1)))
        self.schedules.append(self.sched)

    def fit_epoch(self, batches, lr):
        self.create_opt(lr, len(batches))
        total = 0.0
        for x, y in batches:
            loss = nn.functional.cross_entropy(self.model(x), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.sched.step()
            total += loss.item()
        return total / len(batches)

    def rates(self):
        return [s.get_last_lr()[0] for s in self.schedules]


def batches(count=8):
    out = []
    for _ in range(count):
        x = torch.randn(48, 90)
        out.append((x, (x[:, 0] + x[:, 1] > 0).long()))
    return out


model = nn.Sequential(nn.Linear(90, 300), nn.Hardswish(), nn.Linear(300, 300), nn.Hardswish(), nn.Linear(300, 2))
learner = Learner(model)
data = batches()
for cycle in range(18):
    value = learner.fit_epoch(data, 1e-3 * 0.9**cycle)
    if cycle % 6 == 0:
        print(cycle, round(value, 4))
print(learner.rates()[:3])
