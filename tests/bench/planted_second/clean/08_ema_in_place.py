from copy import deepcopy

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class ModelEma(nn.Module):
    def __init__(self, model, decay=0.99):
        super().__init__()
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for e, p in zip(self.module.state_dict().values(), model.state_dict().values()):
            if e.is_floating_point():
                e.lerp_(p, 1 - self.decay)
            else:
                e.copy_(p)


net = nn.Sequential(
    nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32),
    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
).to(device)
ema = ModelEma(net)
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
for step in range(100):
    x = torch.randn(16, 3, 24, 24, device=device)
    y = (x.mean((1, 2, 3)) * 40).long().clamp(0, 3)
    with torch.no_grad():
        soft = ema.module(x).softmax(1)
    out = net(x)
    loss = nn.functional.cross_entropy(out, y) + 0.1 * (out.softmax(1) - soft).pow(2).sum(1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema.update(net)
    if step % 25 == 0:
        print(step, loss.item())
