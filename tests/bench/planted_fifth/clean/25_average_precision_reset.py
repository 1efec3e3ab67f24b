import torch
from torch import nn

torch.manual_seed(125)
torch.set_num_threads(1)


class MeanAveragePrecision:
    def __init__(self):
        self.values = []

    def update(self, scores, targets):
        order = scores.argsort(1, descending=True)
        hits = targets.gather(1, order)
        precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
        self.values.append(((precision * hits).sum(1) / hits.sum(1).clamp(min=1)).mean().item())

    def pop(self):
        value = sum(self.values) / len(self.values)
        self.values.clear()
        return value


def multilabel(n):
    x = torch.randn(n, 50)
    return x, (x @ torch.ones(50, 80).tril() > 4).float()


net, metric = nn.Sequential(nn.Linear(50, 96), nn.ReLU(), nn.Linear(96, 80)), MeanAveragePrecision()
opt = torch.optim.Adam(net.parameters(), 2e-3)
for step in range(80):
    x, y = multilabel(64)
    loss = nn.functional.binary_cross_entropy_with_logits(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 8 == 7:
        with torch.no_grad():
            for _ in range(4):
                x, y = multilabel(60)
                metric.update(net(x).sigmoid(), y)
        print(step, loss.item(), metric.pop())
