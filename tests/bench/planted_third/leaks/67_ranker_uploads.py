import io

import torch
from torch import nn

torch.manual_seed(67)
torch.set_num_threads(1)
dev = "cuda" if torch.cuda.is_available() else "cpu"


class Uploads:
    def __init__(self):
        self.pending = {}

    def stage(self, name, obj):
        with io.BytesIO() as f:
            torch.save(obj, f)
            self.pending[name] = f.getvalue()

    def total(self):
        return sum(map(len, self.pending.values()))


class Ranker(nn.Module):
    def __init__(self, items=3000, dim=64):
        super().__init__()
        self.items = nn.Embedding(items, dim)
        self.user = nn.Sequential(nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, dim))

    def forward(self, u, i):
        return (self.user(u) * self.items(i)).sum(-1)


model = Ranker().to(dev)
opt = torch.optim.Adagrad(model.parameters(), lr=0.05)
uploads = Uploads()
for step in range(1, 201):
    u = torch.randn(128, 30, device=dev)
    good, bad = torch.randint(0, 3000, (2, 128), device=dev)
    loss = -nn.functional.logsigmoid(model(u, good) - model(u, bad)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 0:
        uploads.stage(f"step-{step}", {"model": model.state_dict(), "step": step})
    if step % 50 == 0:
        print(step, loss.item(), len(uploads.pending), uploads.total())
