import torch
from torch import nn


class CatMetric:
    """Our small version of torchmetrics' AUROC: keeps scores and targets, computes at the end."""

    def __init__(self):
        self.scores, self.targets = [], []

    def update(self, scores, targets):
        self.scores.append(scores.detach())  # LEAK
        self.targets.append(targets.detach())

    def compute(self):
        s, t = torch.cat(self.scores)[:, 0], torch.cat(self.targets)[:, 0]
        order = s.argsort()
        ranks = torch.empty_like(s).scatter_(0, order, torch.arange(1, len(s) + 1, dtype=s.dtype))
        pos = t.sum()
        return ((ranks * t).sum() - pos * (pos + 1) / 2) / (pos * (len(t) - pos)).clamp(min=1)

    def reset(self):
        self.scores, self.targets = [], []


torch.manual_seed(2)
torch.set_num_threads(1)
NUM_LABELS = 80
model = nn.Sequential(nn.Linear(60, 200), nn.SiLU(), nn.Dropout(0.1), nn.Linear(200, NUM_LABELS))
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
loss_fn = nn.BCEWithLogitsLoss()
val_auroc = CatMetric()
W = torch.randn(60, NUM_LABELS)

for epoch in range(10):
    model.train()
    for _ in range(8):
        x = torch.randn(64, 60)
        y = ((x @ W) > 0).float()
        loss = loss_fn(model(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()

    model.eval()
    with torch.no_grad():
        for _ in range(10):
            x = torch.randn(64, 60)
            val_auroc.update(model(x).sigmoid(), ((x @ W) > 0).float())
    print(f"epoch {epoch}: train {loss.item():.4f} auroc {val_auroc.compute().item():.4f}")
