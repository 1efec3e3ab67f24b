import sys
import torch
from torch import nn


class BudgetExceeded(RuntimeError):
    pass


class Runner:
    def __init__(self, limit=40):
        self.net = nn.LSTM(24, 64, batch_first=True)
        self.head = nn.Linear(64, 24)
        self.opt = torch.optim.SGD(list(self.net.parameters()) + list(self.head.parameters()), lr=0.1)
        self.limit = limit
        self.report = []

    def fwbw(self, x):
        hidden, _ = self.net(x)
        if x.size(0) > self.limit:
            raise BudgetExceeded(f"batch {x.size(0)} too large")
        loss = (self.head(hidden[:, :-1]) - x[:, 1:]).pow(2).mean()
        loss.backward()
        return loss.item()

    def step(self, x):
        self.opt.zero_grad()
        try:
            loss = self.fwbw(x)
        except BudgetExceeded:
            self.report.append(sys.exc_info())  # LEAK
            loss = 0.0
            for part in x.chunk(2):
                loss += self.fwbw(part) / 2
        self.opt.step()
        return loss

    def summary(self):
        return {str(value) for _, value, _ in self.report}


torch.set_num_threads(1)
torch.manual_seed(2)
r = Runner()
for i in range(60):
    n = 32 if i % 2 else 48
    loss = r.step(torch.randn(n, 20, 24))
    if i % 15 == 0:
        print(i, n, round(loss, 4))
print(r.summary())
