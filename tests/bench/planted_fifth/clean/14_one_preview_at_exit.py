import atexit

import torch
from torch import nn

torch.manual_seed(114)
torch.set_num_threads(1)
newest = {}


@atexit.register
def show():
    print("last preview", newest["step"], tuple(newest["images"].shape), newest["images"].mean().item())


class Upscaler(nn.Module):
    def __init__(self, width=20):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x):
        return self.shuffle(self.b(torch.relu(self.a(x))))


net = Upscaler()
opt = torch.optim.Adam(net.parameters(), 2e-3)
for step in range(80):
    large = torch.rand(8, 1, 36, 36)
    out = net(nn.functional.avg_pool2d(large, 2))
    loss = nn.functional.l1_loss(out, large)
    opt.zero_grad()
    loss.backward()
    opt.step()
    newest.update(step=step, images=out.detach())
    if step % 20 == 0:
        print(step, loss.item())
