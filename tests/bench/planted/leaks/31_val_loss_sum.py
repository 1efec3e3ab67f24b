import torch
from torch import nn


class Config:
    steps = 90
    every = 6
    val_batches = 3
    bs = 32


class PointNet(nn.Module):
    def __init__(self, k=5):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU())
        self.cls = nn.Linear(64, k)

    def forward(self, pts):
        return self.cls(self.mlp(pts).max(1).values)


def clouds(n):
    lab = torch.randint(0, 5, (n,))
    pts = torch.randn(n, 64, 3) * (1 + lab[:, None, None] * 0.3)
    return pts, lab


def get_loss(net, batch):
    pts, lab = batch
    return nn.functional.cross_entropy(net(pts), lab)


torch.set_num_threads(1)
torch.manual_seed(77)
net = PointNet()
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
valid = [clouds(Config.bs) for _ in range(Config.val_batches)]
curve = []
for step in range(1, Config.steps + 1):
    loss = get_loss(net, clouds(Config.bs))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % Config.every == 0:
        net.eval()
        val_loss = 0
        for b in valid:
            val_loss += get_loss(net, b)  # LEAK
        curve.append(val_loss / len(valid))
        net.train()
        print(step, round(loss.item(), 3), "best so far", min(curve).item())
