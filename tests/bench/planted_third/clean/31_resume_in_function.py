import os
import tempfile

import torch
from torch import nn

torch.manual_seed(131)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def make():
    net = nn.Sequential(nn.Linear(256, 700), nn.Tanh(), nn.Linear(700, 700), nn.Tanh(), nn.Linear(700, 256)).to(device)
    return net, torch.optim.Adam(net.parameters(), lr=1e-4)


def step(net, opt):
    x = torch.randn(16, 256, device=device)
    loss = (net(x) - x.sin()).square().mean()
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    return loss.item()


def first_run(path):
    net, opt = make()
    for _ in range(3):
        step(net, opt)
    torch.save({"model": net.state_dict(), "optimizer": opt.state_dict(), "iter_num": 3}, path)


def resume(path, net, opt):
    ckpt = torch.load(path, map_location="cpu")
    net.load_state_dict(ckpt["model"])
    opt.load_state_dict(ckpt["optimizer"])
    return ckpt["iter_num"]


with tempfile.TemporaryDirectory() as out_dir:
    path = os.path.join(out_dir, "ckpt.pt")
    first_run(path)
    model, optimizer = make()
    it = resume(path, model, optimizer)
while it < 20:
    loss = step(model, optimizer)
    it += 1
    if it % 5 == 0:
        print(it, loss)
