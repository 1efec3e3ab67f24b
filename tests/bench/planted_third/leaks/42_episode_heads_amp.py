import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(42)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 512))

    def forward(self, x):
        return self.f(x)


def episode(way=12, shot=4):
    centres = torch.randn(way, 100)
    y = torch.arange(way).repeat_interleave(shot)
    return (centres[y] + 0.3 * torch.randn(len(y), 100)).to(device), y.to(device)


def adapt(feats, y, way, steps=2, lr=0.5):
    head = nn.Linear(feats.shape[1], 4 * way).to(device)
    out = nn.Linear(4 * way, way).to(device)
    params = [*head.parameters(), *out.parameters()]
    for _ in range(steps):
        loss = F.cross_entropy(out(head(feats).relu()).float(), y)
        for p, g in zip(params, torch.autograd.grad(loss, params)):
            p.data.sub_(lr * g)
    return (out(head(feats).relu()).argmax(1) == y).float().mean().item()


def meta_test(embed, episodes=150):
    scores = []
    with torch.autocast(device, dtype=torch.bfloat16):
        for e in range(episodes):
            x, y = episode()
            with torch.no_grad():
                feats = embed(x)
            scores.append(adapt(feats, y, 12))
            if e % 50 == 49:
                print(e, round(sum(scores) / len(scores), 3))
    return sum(scores) / len(scores)


print(meta_test(Embed().to(device).eval()))
