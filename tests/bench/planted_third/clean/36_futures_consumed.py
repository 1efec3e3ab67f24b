import collections
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

torch.manual_seed(136)
torch.set_num_threads(1)


class Surrogate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(32, 300), nn.Linear(300, 32)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


def simulate(net, x):
    y = net(x)
    energy = (y * x).sum(1)
    drift = (y - x).abs().amax(1)
    if not bool((drift < 4.0).all()):
        raise ArithmeticError(f"diverged: {drift.max().item():.2f}")
    return energy.mean()


class Campaign:
    def __init__(self, net):
        self.net, self.pool = net, ThreadPoolExecutor(max_workers=1)
        self.outcome = collections.Counter()
        self.messages = []

    def run(self, x):
        job = self.pool.submit(simulate, self.net, x)
        try:
            value = job.result()
        except ArithmeticError as e:
            self.outcome["failed"] += 1
            self.messages.append(str(e))
            return None
        finally:
            del job
        self.outcome["fine"] += 1
        return value


net = Surrogate()
opt = torch.optim.Adam(net.parameters(), lr=1e-4)
camp = Campaign(net)
for i in range(120):
    loss = camp.run(torch.randn(128, 32))
    if loss is None:
        continue
    opt.zero_grad()
    loss.backward()
    opt.step()
print(dict(camp.outcome), camp.messages[-1:])
camp.pool.shutdown()
