import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(52)
torch.set_num_threads(1)


class Pair(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, d))
        self.text = nn.Sequential(nn.Linear(80, 256), nn.ReLU(), nn.Linear(256, d))

    def forward(self, a, b):
        return F.normalize(self.image(a), dim=1), F.normalize(self.text(b), dim=1)


def pairs(n):
    z = torch.randn(n, 40)
    return torch.cat([z, torch.randn(n, 60)], 1), torch.cat([torch.randn(n, 40), z], 1)


def recall_at(model, gallery, ks=(1, 5, 10)):
    with torch.no_grad():
        u, v = model(*gallery)
        similarity = u @ v.T
        order = similarity.argsort(1, descending=True)
    truth = torch.arange(len(u))[:, None]
    for k in ks:
        yield k, (order[:, :k] == truth).any(1).float().mean().item()


model = Pair()
opt = torch.optim.AdamW(model.parameters(), 2e-3)
gallery = pairs(1100)
for epoch in range(3):
    results = recall_at(model, gallery)
    k, value = next(results)
    print(f"epoch {epoch} recall@{k} {value:.3f}")
    for _ in range(12):
        u, v = model(*pairs(1024))
        logits = u @ v.T / 0.1
        target = torch.arange(len(u))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("loss", loss.item())
