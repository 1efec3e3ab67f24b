"""Point completion: a coarse and a fine cloud from a partial one."""
import torch
from torch import nn

torch.manual_seed(11)
torch.set_num_threads(1)


class AverageMeters:
    def __init__(self, names):
        self.sums = {n: 0.0 for n in names}
        self.n = 0

    def update(self, values):
        for k, v in values.items():
            self.sums[k] = self.sums[k] + v
        self.n += 1

    def avg(self):
        return {k: float(v) / max(self.n, 1) for k, v in self.sums.items()}


class Completion(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 128))
        self.coarse = nn.Linear(128, 32 * 3)
        self.fine = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 96 * 3))

    def forward(self, pts):
        z = self.enc(pts).amax(1)
        return self.coarse(z).view(-1, 32, 3), self.fine(z).view(-1, 96, 3)


def chamfer(a, b):
    d = torch.cdist(a, b)
    return d.amin(1).mean() + d.amin(2).mean()


def main():
    net = Completion()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    meters = AverageMeters(["coarse", "fine", "consistency"])
    for it in range(120):
        gt = torch.randn(8, 96, 3)
        coarse, fine = net(gt[:, :40])
        l_coarse = chamfer(coarse, gt)
        l_fine = chamfer(fine, gt)
        consistency = chamfer(coarse, fine)
        opt.zero_grad()
        (l_coarse + 0.5 * l_fine).backward()
        opt.step()
        meters.update({"coarse": l_coarse.item(), "fine": l_fine.item(), "consistency": consistency})
        if it % 40 == 39:
            print(it, meters.avg())


if __name__ == "__main__":
    main()
