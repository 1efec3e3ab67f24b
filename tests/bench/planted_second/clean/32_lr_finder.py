import copy

import torch
import torch.nn as nn
import torch.nn.functional as F


class LRFinder:
    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.saved = (copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()))
        self.history = {"lr": [], "loss": []}

    def range_test(self, batches, start=1e-5, end=1.0, smooth=0.05, diverge=5):
        n, best, lr = len(batches), None, start
        for i, (x, y) in enumerate(batches):
            for g in self.optimizer.param_groups:
                g["lr"] = lr
            loss = F.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            value = loss.item()
            if i:
                value = smooth * value + (1 - smooth) * self.history["loss"][-1]
            best = value if best is None else min(best, value)
            self.history["lr"].append(lr)
            self.history["loss"].append(value)
            if value > diverge * best:
                break
            lr *= (end / start) ** (1 / (n - 1))

    def reset(self):
        self.model.load_state_dict(self.saved[0])
        self.optimizer.load_state_dict(self.saved[1])
        self.saved = None

    def suggestion(self):
        i = min(range(1, len(self.history["loss"])), key=lambda j: self.history["loss"][j] - self.history["loss"][j - 1])
        return self.history["lr"][i]


torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(48, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 5))
opt = torch.optim.AdamW(model.parameters(), lr=1e-5)


def batches(n):
    xs = [torch.randn(32, 48) for _ in range(n)]
    return [(x, x[:, :5].argmax(1)) for x in xs]


finder = LRFinder(model, opt)
finder.range_test(batches(50))
finder.reset()
lr = finder.suggestion()
print("suggested", lr)
for g in opt.param_groups:
    g["lr"] = lr
for i, (x, y) in enumerate(batches(60)):
    loss = F.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
print(loss.item())
