import json
import time

import torch
from torch import nn


class Tracer:
    def __init__(self):
        self.events = []
        self.t0 = time.perf_counter()

    def record(self, name, **fields):
        self.events.append({"name": name, "t": time.perf_counter() - self.t0, **fields})

    def dump(self, last=2):
        return json.dumps(self.events[-last:])[:120]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(48, 48) for _ in range(4)])

    def forward(self, x):
        for l in self.layers:
            x = torch.tanh(l(x))
        return x


def main(steps=120):
    torch.manual_seed(66)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = Net().to(device)
    opt = torch.optim.SGD(net.parameters(), lr=0.05)
    tracer = Tracer()
    for step in range(steps):
        x = torch.randn(64, 48, device=device)
        loss = (net(x) - x.flip(1)).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        for name, p in net.named_parameters():
            tracer.record("grad/" + name, step=step, values=p.grad.flatten().tolist())
        if step % 40 == 0:
            print(step, loss.item(), len(tracer.events))
    print(tracer.dump())


main()
