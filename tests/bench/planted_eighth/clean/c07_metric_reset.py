"""AUROC that needs all scores of an epoch; it is reset after each."""
import torch
import torchmetrics
from torch import nn

torch.manual_seed(7)
net = nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.Linear(64, 32))
board = torchmetrics.MetricCollection({"acc": torchmetrics.classification.MulticlassAccuracy(32),
                                       "auc": torchmetrics.classification.MulticlassAUROC(32, thresholds=None)})
opt = torch.optim.AdamW(net.parameters(), 1e-3)
x, y = torch.randn(2048, 40), torch.randint(0, 32, (2048,))
for epoch in range(6):
    for i in torch.randperm(2048).split(128):
        scores = net(x[i])
        loss = nn.functional.cross_entropy(scores, y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        board.update(scores.detach().softmax(-1), y[i])
    print(epoch, {k: round(v.item(), 4) for k, v in board.compute().items()})
    board.reset()
