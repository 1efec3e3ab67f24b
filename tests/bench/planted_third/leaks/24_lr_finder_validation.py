import contextlib
import copy

import torch
from torch import nn

torch.manual_seed(24)
torch.set_num_threads(1)


@contextlib.contextmanager
def mode(net, training):
    before = net.training
    net.train(training)
    try:
        with torch.set_grad_enabled(True):
            yield net
    finally:
        net.train(before)


def conv_net():
    layers, c = [], 3
    for w in (16, 24, 32):
        layers += [nn.Conv2d(c, w, 3, padding=1), nn.BatchNorm2d(w), nn.GELU()]
        c = w
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 4))


class LRFinder:
    def __init__(self, net, train, val):
        self.net, self.train_batch, self.val_set = net, train, val
        self.curve = []

    def run(self, lo=1e-4, hi=0.3, n=10):
        start = copy.deepcopy(self.net.state_dict())
        opt = torch.optim.SGD(self.net.parameters(), lr=lo)
        for i in range(n):
            for group in opt.param_groups:
                group["lr"] = lo * (hi / lo) ** (i / (n - 1))
            with mode(self.net, True) as net:
                loss = nn.functional.cross_entropy(net(self.train_batch[0]), self.train_batch[1])
                opt.zero_grad()
                loss.backward()
                opt.step()
            with mode(self.net, False) as net:
                val = nn.functional.cross_entropy(net(self.val_set[0]), self.val_set[1])
            self.curve.append((opt.param_groups[0]["lr"], float(val)))
        self.net.load_state_dict(start)
        return min(self.curve, key=lambda p: p[1])[0]


def data(n):
    y = torch.randint(0, 4, (n,))
    return torch.rand(n, 3, 16, 16) + y.view(-1, 1, 1, 1) * 0.1, y


finder = LRFinder(conv_net(), data(16), data(64))
print("suggested lr", finder.run())
