import os
import tempfile

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
out_dir = tempfile.mkdtemp()
ckpt_path = os.path.join(out_dir, "ckpt.pt")
init_from = "resume"


class ResidualMLP(nn.Module):
    def __init__(self, width=768, depth=5):
        super().__init__()
        self.inp = nn.Linear(128, width)
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.out = nn.Linear(width, 128)

    def forward(self, x):
        h = self.inp(x)
        for block in self.blocks:
            h = h + F.gelu(block(h))
        return self.out(h)


def write_first_run():
    model = ResidualMLP().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    for _ in range(2):
        x = torch.randn(16, 128, device=device)
        optimizer.zero_grad()
        F.mse_loss(model(x), x.flip(-1)).backward()
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iter_num": 2}, ckpt_path)


write_first_run()

iter_num = 0
model = ResidualMLP()
if init_from == "resume":
    checkpoint = torch.load(ckpt_path, map_location=device)
    state_dict = checkpoint["model"]
    for k in list(state_dict):
        if k.startswith("_orig_mod."):
            state_dict[k[len("_orig_mod.") :]] = state_dict.pop(k)
    model.load_state_dict(state_dict)
    iter_num = checkpoint["iter_num"]
model.to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
if init_from == "resume":
    optimizer.load_state_dict(checkpoint["optimizer"])

max_iters = iter_num + 60
while iter_num < max_iters:
    x = torch.randn(16, 128, device=device)
    loss = F.mse_loss(model(x), x.flip(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    iter_num += 1
    if iter_num % 20 == 0:
        print(f"iter {iter_num}: loss {loss.item():.4f}")

os.remove(ckpt_path)
os.rmdir(out_dir)
