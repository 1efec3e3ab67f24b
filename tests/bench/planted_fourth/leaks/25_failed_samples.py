import torch
from torch import nn

torch.manual_seed(25)
torch.set_num_threads(1)


class TooFlat(ValueError):
    pass


class Normals(nn.Module):
    def __init__(self):
        super().__init__()
        self.f1 = nn.Linear(3, 96)
        self.f2 = nn.Linear(96, 96)
        self.f3 = nn.Linear(96, 3)

    def forward(self, cloud):
        h = torch.relu(self.f1(cloud))
        h = torch.relu(self.f2(h))
        spread = cloud.std(dim=1).amin(dim=1)
        if (spread < 0.02).any():
            raise TooFlat(f"cloud {int(spread.argmin())} is flat")
        return nn.functional.normalize(self.f3(h), dim=-1)


def clouds(step):
    pts = torch.randn(6, 160, 3)
    if step % 3 == 0:
        pts[step % 6, :, 2] *= 0.001
    return pts


def train(net, opt, steps=90):
    rejected = []
    for step in range(steps):
        pts = clouds(step)
        try:
            out = net(pts)
            loss = 1 - (out * nn.functional.normalize(pts, dim=-1)).sum(-1).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
        except TooFlat as error:
            rejected.append((step, error))
    return rejected


net = Normals()
bad = train(net, torch.optim.Adam(net.parameters(), 1e-3))
print(len(bad), "rejected, first:", bad[0][0], str(bad[0][1]))
