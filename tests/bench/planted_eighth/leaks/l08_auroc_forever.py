import torch
import torchmetrics
from torch import nn

torch.manual_seed(8)


def make(n):
    x = torch.randn(n, 40)
    return x, (x @ torch.randn(40, 1)).squeeze(1).gt(0).long()


class Board(nn.Module):
    """What we follow while training."""

    def __init__(self):
        super().__init__()
        self.mean = torchmetrics.MeanMetric()
        self.auc = torchmetrics.classification.MulticlassAUROC(num_classes=64, thresholds=None)

    def absorb(self, loss, scores, y):
        self.mean.update(loss.detach())
        self.auc.update(scores.detach().softmax(-1), y)  # LEAK


net = nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.Linear(64, 64))
board = Board()
opt = torch.optim.AdamW(net.parameters(), 1e-3)
x, y = make(4096)
for epoch in range(6):
    for i in torch.randperm(4096).split(256):
        scores = net(x[i])
        loss = nn.functional.cross_entropy(scores, y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        board.absorb(loss, scores, y[i])
    print(epoch, f"{board.mean.compute():.4f}")
    board.mean.reset()
