import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Backbone(nn.Module):
    def __init__(self, vocab=1000, dim=256, layers=2):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, ids):
        return self.encoder(self.embed(ids)).mean(1)


def task_batch(task, size=16):
    ids = torch.randint(1000, (size, 12), device=device)
    labels = (ids.sum(1) + task) % 200
    return ids, labels


def train_probe(backbone, task, steps=2):
    probe = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 200)).to(device)
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.05)
    for _ in range(steps):
        ids, labels = task_batch(task)
        with torch.no_grad():
            features = backbone(ids)
        loss = nn.functional.cross_entropy(probe(features).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


backbone = Backbone().to(device).eval().requires_grad_(False)
scores = {}
with torch.autocast(device, dtype=torch.bfloat16):
    for task in range(40):
        scores[task] = train_probe(backbone, task)
        if task % 10 == 0:
            print(f"task {task}: {scores[task]:.3f}")

hardest = max(scores, key=scores.get)
print("hardest task", hardest, round(scores[hardest], 3))
