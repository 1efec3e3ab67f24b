import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(50)
torch.set_num_threads(1)


class Tower(nn.Module):
    def __init__(self, features, width=160, depth=7):
        super().__init__()
        self.inp = nn.Linear(features, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(depth))
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        h = self.inp(x)
        for b in self.blocks:
            h = h + b(h)
        return self.out(h).squeeze(-1)


def lists(n, docs=20):
    x = torch.randn(n, docs, 36)
    return x, (x[..., :3].sum(-1) * 2).round().clamp(0, 4)


def listwise(score, rel):
    return -(F.softmax(rel, -1) * F.log_softmax(score, -1)).sum(-1).mean()


def ndcg(score, rel, k=5):
    gain = (2 ** rel.gather(1, score.topk(k).indices) - 1) / torch.log2(torch.arange(k) + 2.0)
    ideal = (2 ** rel.topk(k).values - 1) / torch.log2(torch.arange(k) + 2.0)
    return (gain.sum(1) / ideal.sum(1).clamp(min=1e-9)).mean()


def validate(model, x, rel):
    model.eval()
    score = model(x)
    value = ndcg(score, rel).item()
    loss = listwise(score, rel).item()
    model.train()
    return loss, value


model = Tower(36)
opt = torch.optim.AdamW(model.parameters(), 1e-3)
held_out = lists(100)
for epoch in range(3):
    for _ in range(15):
        x, rel = lists(8)
        loss = listwise(model(x), rel)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item(), validate(model, *held_out))
