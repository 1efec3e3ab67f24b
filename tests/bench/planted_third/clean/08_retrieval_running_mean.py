import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(108)
torch.set_num_threads(1)
dev = "cuda" if torch.cuda.is_available() else "cpu"


class RunningMRR(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, scores, idx):
        rank = (scores.argsort(1, descending=True) == idx[:, None]).float().argmax(1) + 1
        self.total += (1.0 / rank).sum()
        self.count += len(idx)

    def compute(self):
        return (self.total / self.count).item()


class Tower(nn.Sequential):
    def __init__(self, n_in):
        super().__init__(nn.Linear(n_in, 64), nn.GELU(), nn.Linear(64, 32))


query, doc, mrr = Tower(40).to(dev), Tower(56).to(dev), RunningMRR().to(dev)
optim = torch.optim.Adam([*query.parameters(), *doc.parameters()], 1e-3)
for epoch in range(6):
    for _ in range(25):
        base = torch.randn(96, 40, device=dev)
        q = F.normalize(query(base), dim=1)
        d = F.normalize(doc(torch.cat([base, base[:, :16]], 1)), dim=1)
        scores = q @ d.t() / 0.07
        target = torch.arange(96, device=dev)
        loss = F.cross_entropy(scores, target)
        optim.zero_grad()
        loss.backward()
        optim.step()
        mrr.update(scores, target)
    print(f"epoch {epoch}: loss {loss.item():.3f} mrr {mrr.compute():.3f}")
