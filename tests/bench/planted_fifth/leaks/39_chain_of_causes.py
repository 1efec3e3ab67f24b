import torch
from torch import nn

torch.manual_seed(39)
torch.set_num_threads(1)


class BadBatch(Exception):
    pass


class Loop:
    def __init__(self, net):
        self.net = net
        self.opt = torch.optim.Adam(net.parameters(), 1e-3)
        self.last_error, self.skipped = None, 0

    def loss(self, x, y):
        out = self.net(x)
        value = nn.functional.mse_loss(out, y)
        if not torch.isfinite(value):
            raise BadBatch("loss is not finite") from self.last_error
        return value

    def run(self, batches):
        for x, y in batches:
            try:
                loss = self.loss(x, y)
            except BadBatch as error:
                self.last_error = error
                self.skipped += 1
                continue
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
        return loss.item()


def sensor(n, broken=3):
    for i in range(n):
        x = torch.randn(64, 128)
        y = x.cumsum(1)[:, -8:]
        if i % broken == 1:
            y[5, 2] = float("inf")
        yield x, y


loop = Loop(nn.Sequential(nn.Linear(128, 192), nn.Tanh(), nn.Linear(192, 8)))
for epoch in range(5):
    print(epoch, loop.run(sensor(20)), "skipped", loop.skipped, "last:", loop.last_error)
