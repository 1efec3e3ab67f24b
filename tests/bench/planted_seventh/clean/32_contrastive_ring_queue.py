import copy

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(40)
device = "cuda" if torch.cuda.is_available() else "cpu"


class TextTower(nn.Module):
    def __init__(self, vocab=400, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, ids):
        return F.normalize(self.encoder(self.embed(ids)).mean(1), dim=-1)


class MomentumRetriever(nn.Module):
    def __init__(self, queue_size=256, momentum=0.99):
        super().__init__()
        self.query_tower = TextTower()
        self.key_tower = copy.deepcopy(self.query_tower).requires_grad_(False)
        self.momentum = momentum
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, 64), dim=-1))
        self.pointer = 0

    @torch.no_grad()
    def encode_keys(self, passages):
        for q, k in zip(self.query_tower.parameters(), self.key_tower.parameters()):
            k.lerp_(q, 1 - self.momentum)
        return self.key_tower(passages)

    @torch.no_grad()
    def enqueue(self, keys):
        n = len(keys)
        self.queue[self.pointer : self.pointer + n] = keys
        self.pointer = (self.pointer + n) % len(self.queue)

    def forward(self, queries, passages):
        q = self.query_tower(queries)
        k = self.encode_keys(passages)
        scores = q @ torch.cat([k, self.queue.clone()]).t() / 0.05
        loss = F.cross_entropy(scores, torch.arange(len(q), device=q.device))
        self.enqueue(k)
        return loss


retriever = MomentumRetriever().to(device)
optimizer = torch.optim.AdamW(retriever.query_tower.parameters(), lr=1e-3)
for step in range(50):
    passages = torch.randint(0, 400, (8, 24), device=device)
    loss = retriever(passages[:, :10], passages)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 9:
        print(step, round(loss.item(), 4))
