from functools import lru_cache

import torch
from torch import nn

torch.manual_seed(135)
torch.set_num_threads(1)
GRID = 24


@lru_cache(maxsize=4)
def level_map(level, channels=16):
    freqs = torch.exp(torch.linspace(0, 4, channels))
    ramp = torch.linspace(0, 1, GRID)
    return torch.sin((ramp[:, None] + ramp)[None] * freqs[:, None, None] / (0.1 + level / 20))


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(17, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 1, 3, padding=1))

    def forward(self, x, level):
        return self.net(torch.cat([x, level_map(level).expand(len(x), -1, -1, -1)], 1))


model = Denoiser()
opt = torch.optim.Adam(model.parameters(), 2e-3)
for step in range(70):
    level = int(torch.randint(1, 40, ()))
    clean = torch.rand(6, 1, GRID, GRID).round()
    loss = (model(clean + level / 20 * torch.randn_like(clean), level) - clean).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, level, loss.item(), level_map.cache_info().currsize)
