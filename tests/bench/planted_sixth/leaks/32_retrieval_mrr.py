import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class MeanReciprocalRank:
    def __init__(self):
        self.reset()

    def reset(self):
        self.preds = []
        self.target = []

    def update(self, scores, target):
        self.preds.append(scores.detach())
        self.target.append(target)

    def compute(self):
        total, count = 0.0, 0
        for scores, target in zip(self.preds, self.target):
            gold = scores.gather(1, target[:, None])
            rank = (scores > gold).sum(1) + 1
            total += (1.0 / rank).sum().item()
            count += len(rank)
        return total / count


class TwoTower(nn.Module):
    def __init__(self, vocab=2000, dim=64):
        super().__init__()
        self.query = nn.EmbeddingBag(vocab, dim)
        self.passage = nn.EmbeddingBag(vocab, dim)

    def forward(self, queries, passages):
        q = F.normalize(self.query(queries), dim=-1)
        p = F.normalize(self.passage(passages), dim=-1)
        return q @ p.t() / 0.05


class Retriever:
    def __init__(self):
        self.model = TwoTower().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.train_mrr = MeanReciprocalRank()

    def training_step(self, batch):
        scores = self.model(*batch)
        target = torch.arange(len(scores), device=device)
        loss = F.cross_entropy(scores, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.train_mrr.update(scores, target)
        return loss.item()

    def fit(self, epochs, steps, batch_size=192):
        for epoch in range(epochs):
            for _ in range(steps):
                queries = torch.randint(2000, (batch_size, 12), device=device)
                noise = torch.randint(2000, (batch_size, 12), device=device)
                loss = self.training_step((queries, torch.cat([queries, noise], dim=1)))
            print(f"epoch {epoch} loss {loss:.3f} mrr {self.train_mrr.compute():.3f}")


Retriever().fit(epochs=8, steps=12)
