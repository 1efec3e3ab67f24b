import os
import tempfile

import torch
from torch import nn

torch.manual_seed(35)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
init_from = "resume"
out_dir = tempfile.mkdtemp()
ckpt_path = os.path.join(out_dir, "ckpt.pt")


def make():
    net = nn.Sequential(nn.Linear(256, 900), nn.Tanh(), nn.Linear(900, 900), nn.Tanh(), nn.Linear(900, 256)).to(device)
    return net, torch.optim.Adam(net.parameters(), lr=1e-4)


def step(net, opt):
    x = torch.randn(16, 256, device=device)
    loss = (net(x) - x.sin()).square().mean()
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    return loss.item()


def first_run():
    net, opt = make()
    for _ in range(3):
        step(net, opt)
    torch.save({"model": net.state_dict(), "optimizer": opt.state_dict(), "iter_num": 3}, ckpt_path)


first_run()
model, optimizer = make()
iter_num = 0
if init_from == "resume":
    checkpoint = torch.load(ckpt_path, map_location=device)
    state_dict = checkpoint["model"]
    model.load_state_dict(state_dict)
    optimizer.load_state_dict(checkpoint["optimizer"])
    iter_num = checkpoint["iter_num"]

while iter_num < 15:
    loss = step(model, optimizer)
    iter_num += 1
    if iter_num % 4 == 0:
        print(iter_num, loss)
