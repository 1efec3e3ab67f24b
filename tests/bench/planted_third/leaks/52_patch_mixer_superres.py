import random

import torch
from torch import nn
from torch.nn import functional as F


def make_reproducible(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)


class PatchMixer(nn.Module):
    def __init__(self, dim=48, heads=6):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(b, n, d))


class SuperRes(nn.Module):
    def __init__(self, dim=48, depth=2):
        super().__init__()
        self.inp = nn.Conv2d(3, dim, 1)
        self.mix = nn.ModuleList([PatchMixer(dim) for _ in range(depth)])
        self.out = nn.Conv2d(dim, 3, 1)

    def forward(self, img):
        h = self.inp(img)
        b, c, y, x = h.shape
        t = h.flatten(2).transpose(1, 2)
        for m in self.mix:
            t = m(t)
        return img + self.out(t.transpose(1, 2).reshape(b, c, y, x))


if __name__ == "__main__":
    make_reproducible(52)
    torch.set_num_threads(1)
    net = SuperRes()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(8):
        sharp = torch.rand(1, 3, 24, 24)
        blurred = F.avg_pool2d(sharp, 3, 1, 1)
        loss = F.l1_loss(net(blurred), sharp)
        opt.zero_grad()
        loss.backward()
        opt.step()
        print(step, round(loss.item(), 4))
