import torch
from torch import nn


class RocAuc:
    """keeps scores and targets until compute()"""

    def __init__(self):
        self.reset()

    def reset(self):
        self.scores, self.targets = [], []

    def update(self, scores, targets):
        self.scores.append(scores)
        self.targets.append(targets)

    def compute(self):
        s, t = torch.cat(self.scores).flatten(), torch.cat(self.targets).flatten()
        rank = torch.empty_like(s)
        rank[s.argsort()] = torch.arange(1, len(s) + 1, dtype=s.dtype)
        pos = t.sum()
        return ((rank[t == 1].sum() - pos * (pos + 1) / 2) / (pos * (len(t) - pos))).item()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1))
        self.auc = RocAuc()

    def forward(self, x):
        return self.body(x)


torch.set_num_threads(1)
torch.manual_seed(40)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.5)
for epoch in range(8):
    for _ in range(10):
        x = torch.rand(4, 2, 48, 48)
        y = (x[:, :1] > x[:, 1:]).float()
        out = net(x)
        loss = nn.functional.binary_cross_entropy_with_logits(out, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        net.auc.update(out.detach(), y)  # LEAK
    print(epoch, loss.item(), round(net.auc.compute(), 4))
