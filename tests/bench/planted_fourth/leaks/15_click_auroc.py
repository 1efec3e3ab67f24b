import torch
from torch import nn
from torchmetrics.classification import BinaryAUROC

torch.manual_seed(15)
torch.set_num_threads(1)
FIELDS, BUCKETS = 12, 500


class FM(nn.Module):
    def __init__(self, k=16):
        super().__init__()
        self.v = nn.Embedding(FIELDS * BUCKETS, k)
        self.w = nn.Embedding(FIELDS * BUCKETS, 1)
        nn.init.normal_(self.v.weight, std=0.05)

    def forward(self, idx):
        e = self.v(idx)
        pair = 0.5 * (e.sum(1).pow(2) - e.pow(2).sum(1)).sum(1)
        return self.w(idx).sum((1, 2)) + pair


truth = torch.randn(FIELDS * BUCKETS)
offset = torch.arange(FIELDS) * BUCKETS


def clicks(n=4096):
    idx = torch.randint(BUCKETS, (n, FIELDS)) + offset
    p = torch.sigmoid(truth[idx].sum(1) * 0.4)
    return idx, torch.bernoulli(p)


model = FM()
opt = torch.optim.Adagrad(model.parameters(), lr=0.05)
auc = BinaryAUROC()
for epoch in range(8):
    for _ in range(10):
        idx, y = clicks()
        logit = model(idx)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        auc.update(logit.detach(), y.long())
    print(epoch, f"{loss.item():.4f} auc {auc.compute().item():.4f}")
