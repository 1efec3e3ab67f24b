import os
import tempfile
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(14)
folder = tempfile.mkdtemp()
path = os.path.join(folder, "last.pt")


def new():
    net = nn.Sequential(nn.Linear(64, 640), nn.ReLU(), nn.Linear(640, 640), nn.ReLU(), nn.Linear(640, 10))
    return net, torch.optim.Adam(net.parameters(), lr=1e-3)


def run(net, opt, start, stop):
    for it in range(start, stop):
        x = torch.randn(16, 64)
        y = x[:, :10].argmax(1)
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if it % 10 == 0:
            print(it, loss.item())


net, opt = new()
run(net, opt, 0, 20)
ema = {k: v.clone() for k, v in net.state_dict().items()}
torch.save({"model": net.state_dict(), "ema": ema, "optim": opt.state_dict(), "step": 20}, path)
del net, opt, ema

# second half: continue from the file
ckpt = torch.load(path)  # LEAK
net, opt = new()
net.load_state_dict(ckpt["model"])
opt.load_state_dict(ckpt["optim"])
run(net, opt, ckpt["step"], 60)
os.remove(path)
os.rmdir(folder)
