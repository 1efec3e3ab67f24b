import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

torch.manual_seed(6)
net = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99))
opt = torch.optim.AdamW(net.parameters(), 1e-3)
smooth = None
for it in range(90):
    x = torch.randn(128, 64)
    loss = (net(x) - x.cumsum(1)).abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema.update_parameters(net)
    smooth = loss.detach() if smooth is None else 0.9 * smooth + 0.1 * loss.detach()
    if it % 30 == 29:
        print(it + 1, f"{smooth.item():.4f}")
