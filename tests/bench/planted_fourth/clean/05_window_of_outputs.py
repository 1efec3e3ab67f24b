from collections import deque

import torch
from torch import nn

torch.manual_seed(105)
torch.set_num_threads(1)


def blobs(n, size=40):
    yy, xx = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    c = torch.randint(10, 30, (n, 2, 1, 1))
    mask = ((yy - c[:, :1]) ** 2 + (xx - c[:, 1:]) ** 2 < 60).float()
    return mask + 0.4 * torch.randn(n, 1, size, size), mask


class Smoother:
    def __init__(self, window):
        self.last = deque(maxlen=window)

    def __call__(self, prob):
        self.last.append(prob)
        return sum(self.last) / len(self.last)


net = nn.Sequential(
    nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(12, 1, 1)
)
opt = torch.optim.Adam(net.parameters(), 3e-3)
fixed, _ = blobs(12)
smooth = Smoother(8)
for step in range(64):
    image, mask = blobs(6)
    loss = nn.functional.binary_cross_entropy_with_logits(net(image), mask)
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        average = smooth(net(fixed).sigmoid())
    if step % 16 == 15:
        print(step, loss.item(), average.gt(0.5).float().mean().item())
