from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

torch.manual_seed(44)
torch.set_num_threads(1)


class Surrogate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(32, 500), nn.Linear(500, 32)

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
        self.net = net
        self.pool = ThreadPoolExecutor(max_workers=1)
        self.jobs = []

    def submit(self, x):
        job = self.pool.submit(simulate, self.net, x)
        self.jobs.append(job)
        return job

    def rate(self):
        failed = sum(j.done() and j.exception() is not None for j in self.jobs)
        return failed / max(len(self.jobs), 1)


net = Surrogate()
opt = torch.optim.Adam(net.parameters(), lr=1e-4)
camp = Campaign(net)
for i in range(120):
    job = camp.submit(torch.randn(128, 32))
    try:
        loss = job.result()
    except ArithmeticError:
        continue
    opt.zero_grad()
    loss.backward()
    opt.step()
print("failure rate", camp.rate())
camp.pool.shutdown()
