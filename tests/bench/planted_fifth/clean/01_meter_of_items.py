import torch
from torch import nn

torch.manual_seed(101)
torch.set_num_threads(1)


class AverageMeter:
    def __init__(self):
        self.sum, self.count = 0.0, 0

    def update(self, value, n=1):
        self.sum += float(value) * n
        self.count += n

    @property
    def average(self):
        return self.sum / max(1, self.count)


net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1))
opt = torch.optim.Adam(net.parameters(), 1e-3)
losses, quality = AverageMeter(), AverageMeter()
for step in range(70):
    clean = torch.rand(8, 1, 32, 32)
    noisy = clean + 0.1 * torch.randn_like(clean)
    restored = noisy - net(noisy)
    loss = nn.functional.l1_loss(restored, clean)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.update(loss.item(), len(clean))
    with torch.no_grad():
        quality.update(-10 * torch.log10((restored - clean).pow(2).mean()), len(clean))
    if step % 20 == 0:
        print(step, losses.average, quality.average)
