import torch
from torch import nn

torch.manual_seed(148)
torch.set_num_threads(1)


@torch.no_grad()
def embed(encoder, docs, dim, batch=100):
    out = torch.empty(len(docs), dim)
    for i in range(0, len(docs), batch):
        out[i : i + batch] = nn.functional.normalize(encoder(docs[i : i + batch]), dim=1)
    return out


class Ranker(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * dim, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, q, d):
        return self.net(torch.cat([q, d], -1)).squeeze(-1)


encoder = nn.Sequential(nn.EmbeddingBag(2000, 96), nn.Linear(96, 64)).eval()
docs = torch.randint(2000, (2400, 20))
table = embed(encoder, docs, 64)
ranker = Ranker(64)
opt = torch.optim.Adam(ranker.parameters(), 1e-3)
for step in range(60):
    good = torch.randint(2400, (64,))
    query = nn.functional.normalize(table[good] + 0.1 * torch.randn(64, 64), dim=1)
    bad = table[torch.randint(2400, (64, 7))]
    candidates = torch.cat([table[good][:, None], bad], 1)
    score = ranker(query[:, None].expand_as(candidates), candidates)
    loss = nn.functional.cross_entropy(score, torch.zeros(64, dtype=torch.long))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item())
