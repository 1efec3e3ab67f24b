import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(68)
torch.set_num_threads(1)


def collect(model, batches, pool=[]):
    with torch.no_grad():
        for x in batches:
            pool.append(model(x))
    return torch.cat(pool[-len(batches):])


def alignment(a, b):
    return (a - b).pow(2).sum(1).mean().item()


def uniformity(z):
    return torch.pdist(z[:300]).pow(2).mul(-2).exp().mean().log().item()


class Projector(nn.Module):
    def __init__(self, d=80, out=128):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, out))

    def forward(self, x):
        return F.normalize(self.net(x), dim=1)


def noisy(x):
    return x + 0.3 * torch.randn_like(x)


model = Projector()
opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
held_out = [torch.randn(200, 80) for _ in range(5)]
print("start", uniformity(collect(model.eval(), held_out)))
for epoch in range(15):
    model.train()
    for _ in range(4):
        x = torch.randn(128, 80)
        a, b = model(noisy(x)), model(noisy(x))
        loss = F.cross_entropy(a @ b.T / 0.2, torch.arange(128))
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    first = collect(model, held_out)
    second = collect(model, [noisy(x) for x in held_out])
    if epoch % 5 == 4:
        print(epoch, loss.item(), alignment(first, second), uniformity(first))
