import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

torch.manual_seed(125)
torch.set_num_threads(1)
FIELDS, BUCKETS = 12, 500


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Embedding(FIELDS * BUCKETS, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, idx):
        return self.out(self.w(idx).sum(1)).squeeze(1)


truth = torch.randn(FIELDS * BUCKETS)
offset = torch.arange(FIELDS) * BUCKETS


def clicks(n=2048):
    idx = torch.randint(BUCKETS, (n, FIELDS)) + offset
    return idx, torch.bernoulli(torch.sigmoid(truth[idx].sum(1) * 0.4))


model = Wide()
opt = torch.optim.Adagrad(model.parameters(), lr=0.1)
metrics = MetricCollection({"auc": BinaryAUROC(), "acc": BinaryAccuracy()})
table = []
for epoch in range(8):
    for _ in range(8):
        idx, y = clicks()
        logit = model(idx)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        metrics.update(logit.detach().sigmoid(), y.long())
    table.append({k: round(v.item(), 4) for k, v in metrics.compute().items()})
    metrics.reset()
print(table[0], table[-1])
