import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(10)
ITEMS = 6000


class Recommender(nn.Module):
    def __init__(self, users=500, items=ITEMS, dim=16):
        super().__init__()
        self.u = nn.Embedding(users, dim)
        self.i = nn.Embedding(items, dim)

    def forward(self, users):
        return self.u(users) @ self.i.weight.t()


model = Recommender()
opt = torch.optim.SGD(model.parameters(), lr=0.5)


def train_epoch(n=20):
    tot = 0.0
    for _ in range(n):
        u = torch.randint(0, 500, (16,))
        pos = (u * 37) % ITEMS
        loss = F.cross_entropy(model(u), pos)
        opt.zero_grad()
        loss.backward()
        opt.step()
        tot += loss.item()
    return tot / n


@torch.no_grad()
def validate():
    users = torch.arange(500)
    return torch.cat([model(c) for c in users.split(50)]), (users * 37) % ITEMS


for epoch in range(4):
    tr = train_epoch()
    scores, target = validate()  # LEAK
    hit = (scores.topk(20, 1).indices == target[:, None]).any(1).float().mean()
    print(f"epoch {epoch} loss {tr:.3f} hit@20 {hit.item():.3f}")
