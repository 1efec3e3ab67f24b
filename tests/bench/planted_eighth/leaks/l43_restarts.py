"""Warm restarts: a new AdamW and scheduler per cycle; the old schedulers stay in a list, and with them their states."""
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR


class Cycles:
    def __init__(self, net):
        self.net, self.past, self.current = net, [], None

    def begin(self):
        opt = torch.optim.AdamW(self.net.parameters(), 1e-3)
        self.current = CosineAnnealingLR(opt, 8)
        self.past.append(self.current)  # LEAK
        return opt

    def lrs(self):
        return [round(s.get_last_lr()[0], 6) for s in self.past[-2:]]


torch.manual_seed(43)
net = nn.Sequential(nn.Linear(180, 360), nn.Mish(), nn.Linear(360, 180))
cyc = Cycles(net)
for c in range(14):
    opt = cyc.begin()
    for _ in range(8):
        x = torch.randn(40, 180)
        loss = (net(x) - x.sort(1).values).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        cyc.current.step()
    if c % 3 == 2:
        print(c, f"{loss.item():.4f}", cyc.lrs())
