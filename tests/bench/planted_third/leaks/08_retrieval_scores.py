import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(8)
torch.set_num_threads(1)
dev = "cuda" if torch.cuda.is_available() else "cpu"


class RetrievalMRR(nn.Module):
    def __init__(self):
        super().__init__()
        self.indexes = []
        self.preds = []

    def forward(self, scores, idx):
        self.preds.append(scores.detach())
        self.indexes.append(idx)
        return self._mrr(scores.detach(), idx)

    def compute(self):
        return torch.stack([self._mrr(s, i) for s, i in zip(self.preds, self.indexes)]).mean()

    def reset(self):
        del self.indexes[:], self.preds[:]

    @staticmethod
    def _mrr(scores, idx):
        order = scores.argsort(1, descending=True)
        rank = (order == idx[:, None]).float().argmax(1) + 1
        return (1.0 / rank).mean()


class Tower(nn.Sequential):
    def __init__(self, n_in):
        super().__init__(nn.Linear(n_in, 64), nn.GELU(), nn.Linear(64, 32))


query, doc = Tower(40).to(dev), Tower(56).to(dev)
mrr = RetrievalMRR().to(dev)
optim = torch.optim.Adam(list(query.parameters()) + list(doc.parameters()), 1e-3)
B = 96
for epoch in range(6):
    for _ in range(25):
        base = torch.randn(B, 40, device=dev)
        q = F.normalize(query(base), dim=1)
        d = F.normalize(doc(torch.cat([base, base[:, :16]], 1)), dim=1)
        scores = q @ d.t() / 0.07
        target = torch.arange(B, device=dev)
        loss = F.cross_entropy(scores, target)
        optim.zero_grad()
        loss.backward()
        optim.step()
        mrr(scores, target)
    print(f"epoch {epoch}: loss {loss.item():.3f} mrr {mrr.compute().item():.3f}")
