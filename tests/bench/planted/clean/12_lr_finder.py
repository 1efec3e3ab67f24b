import copy
import math
import torch
from torch import nn


def lr_range_test(model, opt, batch_fn, lo=1e-5, hi=1.0, n=25):
    saved = copy.deepcopy(model.state_dict()), copy.deepcopy(opt.state_dict())
    curve = []
    best = math.inf
    for i in range(n):
        lr = lo * (hi / lo) ** (i / (n - 1))
        for g in opt.param_groups:
            g["lr"] = lr
        x, y = batch_fn()
        loss = nn.functional.mse_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        curve.append((lr, loss.item()))
        best = min(best, loss.item())
        if loss.item() > 8 * best:
            break
    model.load_state_dict(saved[0])
    opt.load_state_dict(saved[1])
    return min(curve, key=lambda c: c[1])[0] / 10


def batch():
    x = torch.randn(64, 24)
    return x, x.sin().mean(1, keepdim=True)


torch.set_num_threads(1)
torch.manual_seed(11)
net = nn.Sequential(nn.Linear(24, 256), nn.ReLU(), nn.Linear(256, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
lr = lr_range_test(net, opt, batch)
for g in opt.param_groups:
    g["lr"] = lr
for step in range(80):
    x, y = batch()
    loss = nn.functional.mse_loss(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
print("lr", lr, "final", loss.item())
