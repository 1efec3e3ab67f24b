"""Denoising diffusion with a small UNet whose middle features feed a sketch guidance head."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class UNet(nn.Module):
    def __init__(self, ch=24):
        super().__init__()
        self.time = nn.Linear(1, ch)
        self.inp = nn.Conv2d(3, ch, 3, padding=1)
        self.down = nn.Conv2d(ch, ch * 2, 3, stride=2, padding=1)
        self.mid = nn.Sequential(nn.Conv2d(ch * 2, ch * 2, 3, padding=1), nn.SiLU())
        self.up = nn.ConvTranspose2d(ch * 2, ch, 2, stride=2)
        self.out = nn.Conv2d(ch * 2, 3, 3, padding=1)

    def forward(self, x, t):
        h = F.silu(self.inp(x) + self.time(t[:, None])[:, :, None, None])
        m = self.mid(F.silu(self.down(h)))
        return self.out(torch.cat([h, self.up(m)], dim=1))


class HookedUNet:
    def __init__(self, unet):
        self.unet = unet
        self.records = []
        unet.mid.register_forward_hook(self._record)

    def _record(self, module, args, output):
        self.records.append(output)

    def __call__(self, x, t):
        return self.unet(x, t), self.records[-1]


class Diffusion:
    def __init__(self, steps=100):
        beta = torch.linspace(1e-4, 0.02, steps, device=device)
        self.abar = (1 - beta).cumprod(0)
        self.steps = steps

    def noise(self, x0):
        t = torch.randint(self.steps, (len(x0),), device=device)
        eps = torch.randn_like(x0)
        a = self.abar[t][:, None, None, None]
        return a.sqrt() * x0 + (1 - a).sqrt() * eps, eps, t / self.steps


torch.manual_seed(0)
unet = UNet().to(device)
hooked = HookedUNet(unet)
edge_head = nn.Conv2d(48, 1, 1).to(device)
diffusion = Diffusion()
opt = torch.optim.AdamW([*unet.parameters(), *edge_head.parameters()], lr=1e-3)

for step in range(40):
    x0 = torch.rand(8, 3, 24, 24, device=device) * 2 - 1
    sketch = F.avg_pool2d(x0.mean(1, keepdim=True), 2)
    noisy, eps, t = diffusion.noise(x0)
    pred, mid = hooked(noisy, t)
    loss = F.mse_loss(pred, eps) + 0.1 * F.mse_loss(edge_head(mid), sketch)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(f"step {step} loss {loss.item():.4f}")
