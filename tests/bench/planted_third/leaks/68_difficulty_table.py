import numpy as np
import torch
from torch import nn

rng = np.random.default_rng(68)
torch.manual_seed(68)
torch.set_num_threads(1)


class Curriculum:
    def __init__(self, n):
        self.n = n
        self.table = {}

    def update(self, epoch, idx, losses, feats):
        for i, l, f in zip(idx, losses, feats):
            self.table[epoch, int(i)] = (float(l), np.array(f))

    def order(self, epoch):
        if epoch == 0:
            return rng.permutation(self.n)
        keys = [(self.table[epoch - 1, i][0], i) for i in range(self.n)]
        return np.array([i for _, i in sorted(keys)])


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(50, 512), nn.ReLU())
        self.g = nn.Linear(512, 5)

    def forward(self, x):
        h = self.f(x)
        return self.g(h), h


def main(n=800, epochs=12, batch=80):
    x = torch.randn(n, 50)
    y = x[:, :5].argmax(1)
    net = MLP()
    opt = torch.optim.SGD(net.parameters(), lr=0.05)
    cur = Curriculum(n)
    for epoch in range(epochs):
        for idx in np.split(cur.order(epoch), n // batch):
            out, h = net(x[idx])
            each = nn.functional.cross_entropy(out, y[idx], reduction="none")
            opt.zero_grad()
            each.mean().backward()
            opt.step()
            cur.update(epoch, idx, each.tolist(), h.detach().cpu().numpy())
        if epoch % 4 == 0:
            print(epoch, each.mean().item(), len(cur.table))


main()
