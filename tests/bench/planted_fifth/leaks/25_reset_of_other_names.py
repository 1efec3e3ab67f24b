import torch
from torch import nn

torch.manual_seed(25)
torch.set_num_threads(1)


class MeanAveragePrecision:
    def __init__(self):
        self.scores, self.targets = [], []

    def update(self, scores, targets):
        self.scores.append(scores)
        self.targets.append(targets)

    def reset(self):
        self.score, self.target = [], []

    def compute(self):
        s, t = torch.cat(self.scores), torch.cat(self.targets)
        order = s.argsort(1, descending=True)
        hits = t.gather(1, order)
        precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
        return ((precision * hits).sum(1) / hits.sum(1).clamp(min=1)).mean().item()


def multilabel(n):
    x = torch.randn(n, 50)
    return x, (x @ torch.ones(50, 80).tril() > 4).float()


def validate(net, metric, batches=6):
    net.eval()
    with torch.no_grad():
        for _ in range(batches):
            x, y = multilabel(60)
            metric.update(net(x).sigmoid(), y)
    value = metric.compute()
    metric.reset()
    net.train()
    return value


net = nn.Sequential(nn.Linear(50, 96), nn.ReLU(), nn.Linear(96, 80))
opt = torch.optim.Adam(net.parameters(), 2e-3)
metric = MeanAveragePrecision()
for step in range(80):
    x, y = multilabel(64)
    loss = nn.functional.binary_cross_entropy_with_logits(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 4:
        print(step, loss.item(), validate(net, metric))
