"""Metric learning. Two lists in one tracker: one is harmless, the other is not."""
import torch
from torch import nn


class Tracker:
    __slots__ = ("losses", "codes", "steps")

    def __init__(self):
        self.losses, self.codes, self.steps = [], [], 0

    def see(self, loss, code):
        self.losses.append(loss)
        self.codes.append(code)  # LEAK
        self.steps += 1

    def mean(self, k=10):
        return sum(x.item() for x in self.losses[-k:]) / k


torch.manual_seed(19)
net = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 192))
opt = torch.optim.Adam(net.parameters(), 1e-3)
tr = Tracker()
for it in range(100):
    a = torch.randn(96, 128)
    p = a + 0.05 * torch.randn(96, 128)
    n = a.roll(1, 0)
    ea, ep, en = net(a), net(p), net(n)
    loss = nn.functional.triplet_margin_loss(ea, ep, en)
    opt.zero_grad()
    loss.backward()
    opt.step()
    tr.see(loss, torch.stack([ea.detach(), ep.detach()]))
    if it % 25 == 24:
        print(it + 1, f"{tr.mean():.4f}")
