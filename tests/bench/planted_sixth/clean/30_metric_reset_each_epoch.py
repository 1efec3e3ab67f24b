import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class RankingMetric:
    def __init__(self):
        self.scores = []

    def update(self, scores):
        self.scores.append(scores.detach())

    def compute(self):
        ranks = [(s > s.diagonal()[:, None]).sum(1) + 1 for s in self.scores]
        return (1.0 / torch.cat(ranks)).mean().item()

    def reset(self):
        self.scores.clear()


class BiEncoder(nn.Module):
    def __init__(self, vocab=1500, dim=64):
        super().__init__()
        self.left = nn.EmbeddingBag(vocab, dim)
        self.right = nn.EmbeddingBag(vocab, dim)

    def forward(self, a, b):
        return F.normalize(self.left(a), dim=-1) @ F.normalize(self.right(b), dim=-1).t() * 15


model = BiEncoder().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
metric = RankingMetric()
for epoch in range(10):
    for _ in range(10):
        ids = torch.randint(1500, (128, 10), device=device)
        scores = model(ids, ids.flip(1))
        loss = F.cross_entropy(scores, torch.arange(128, device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metric.update(scores)
    print(epoch, round(loss.item(), 3), round(metric.compute(), 3))
    metric.reset()
