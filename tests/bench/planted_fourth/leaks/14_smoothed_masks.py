from collections import deque
from itertools import islice

import torch
from torch import nn

WINDOW = 8
torch.manual_seed(9)
torch.set_num_threads(1)


def blobs(n, size=40):
    yy, xx = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    c = torch.randint(10, 30, (n, 2, 1, 1))
    mask = ((yy - c[:, :1]) ** 2 + (xx - c[:, 1:]) ** 2 < 60).float()
    return mask + 0.4 * torch.randn(n, 1, size, size), mask


class Tiny(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(12, 1, 1),
        )


def main():
    net, history = Tiny(), deque()
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    fixed, _ = blobs(12)
    for step in range(64):
        image, mask = blobs(6)
        loss = nn.functional.binary_cross_entropy_with_logits(net(image), mask)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            history.append(net(fixed).sigmoid())
        if step % 16 == 15:
            recent = list(islice(reversed(history), WINDOW))
            smooth = torch.stack(recent).mean(0)
            print(step, loss.item(), "area", smooth.gt(0.5).float().mean().item())


if __name__ == "__main__":
    main()
