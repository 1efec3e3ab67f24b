import csv
import logging
import os
import tempfile
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(18)
folder = tempfile.mkdtemp()
logging.basicConfig(filename=os.path.join(folder, "train.log"), level=logging.INFO, force=True)
log = logging.getLogger("run")

net = nn.Sequential(nn.Linear(20, 150), nn.ELU(), nn.Linear(150, 20))
opt = torch.optim.NAdam(net.parameters(), lr=1e-3)
with open(os.path.join(folder, "metrics.csv"), "w", newline="") as fh:
    out = csv.DictWriter(fh, ["step", "loss", "norm"])
    out.writeheader()
    for step in range(120):
        x = torch.randn(32, 20)
        y = net(x)
        loss = (y - x.flip(1)).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        out.writerow({"step": step, "loss": f"{loss.item():.5f}", "norm": f"{y.detach().norm().item():.3f}"})
        log.info("step %d batch %s", step, y.detach())
logging.shutdown()
for f in sorted(os.listdir(folder)):
    print(f, os.path.getsize(os.path.join(folder, f)) > 0)
    os.remove(os.path.join(folder, f))
os.rmdir(folder)
