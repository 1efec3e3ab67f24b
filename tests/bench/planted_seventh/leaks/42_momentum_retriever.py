import copy
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(20)
device = "cuda" if torch.cuda.is_available() else "cpu"


class TextTower(nn.Module):
    def __init__(self, vocab=400, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.project = nn.Linear(dim, 64)

    def forward(self, ids):
        return F.normalize(self.project(self.encoder(self.embed(ids)).mean(1)), dim=-1)


class MomentumRetriever:
    def __init__(self, queue_batches=128, momentum=0.99, temperature=0.05):
        self.query_tower = TextTower().to(device)
        self.key_tower = copy.deepcopy(self.query_tower)
        self.queue = deque(maxlen=queue_batches)
        self.momentum = momentum
        self.temperature = temperature

    @torch.no_grad()
    def update_key_tower(self):
        for q, k in zip(self.query_tower.parameters(), self.key_tower.parameters()):
            k.mul_(self.momentum).add_(q, alpha=1 - self.momentum)

    def loss(self, queries, passages):
        q = self.query_tower(queries)
        k = self.key_tower(passages)
        negatives = [keys.detach() for keys in self.queue]
        candidates = torch.cat([k.detach(), *negatives])
        target = torch.arange(len(q), device=q.device)
        loss = F.cross_entropy(q @ candidates.t() / self.temperature, target)
        self.queue.append(k)
        return loss


retriever = MomentumRetriever()
optimizer = torch.optim.AdamW(retriever.query_tower.parameters(), lr=1e-3)
for step in range(50):
    passages = torch.randint(0, 400, (4, 24), device=device)
    loss = retriever.loss(passages[:, :10], passages)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    retriever.update_key_tower()
    if step % 10 == 9:
        print(step, round(loss.item(), 4), "queue", len(retriever.queue))
