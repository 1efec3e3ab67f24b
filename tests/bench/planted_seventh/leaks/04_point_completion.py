"""Point cloud completion with a Chamfer loss."""

import torch
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class AverageMeter:
    def __init__(self, names):
        self.names = names
        self.reset()

    def reset(self):
        self.history = {n: [] for n in self.names}
        self.total = dict.fromkeys(self.names, 0.0)
        self.count = 0

    def update(self, **values):
        for name, value in values.items():
            self.history[name].append(value)
            self.total[name] += value.mean().item()
        self.count += 1

    def avg(self, name):
        return self.total[name] / max(self.count, 1)


class Completion(nn.Module):
    def __init__(self, n_out):
        super().__init__()
        self.encode = nn.Sequential(nn.Conv1d(3, 48, 1), nn.ReLU(), nn.Conv1d(48, 96, 1))
        self.decode = nn.Sequential(nn.Linear(96, 192), nn.ReLU(), nn.Linear(192, n_out * 3))

    def forward(self, partial):
        code = self.encode(partial.transpose(1, 2)).amax(dim=2)
        return self.decode(code).view(len(partial), -1, 3)


def chamfer(a, b):
    dist = torch.cdist(a, b)
    return dist.amin(dim=2), dist.amin(dim=1)


def shapes(batch, n):
    p = torch.randn(batch, n, 3, device=device)
    return p / p.norm(dim=2, keepdim=True) * (0.5 + torch.rand(batch, 1, 1, device=device))


torch.manual_seed(3)
net = Completion(n_out=384).to(device)
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
meter = AverageMeter(["accuracy", "completeness"])

for epoch in range(4):
    for _ in range(12):
        full = shapes(10, 384)
        pred = net(full[:, :160])
        d_pred, d_full = chamfer(pred, full)
        loss = d_pred.mean() + d_full.mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        meter.update(accuracy=d_pred.detach(), completeness=d_full.detach())
    print(f"epoch {epoch}: accuracy {meter.avg('accuracy'):.4f} completeness {meter.avg('completeness'):.4f}")
