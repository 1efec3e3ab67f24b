import os
import tempfile

import torch
from torch import nn

torch.manual_seed(60)
torch.set_num_threads(1)
PATH = os.path.join(tempfile.mkdtemp(), "ckpt.pt")


def build():
    model = nn.Sequential(nn.Linear(256, 640), nn.ReLU(), nn.Linear(640, 256), nn.ReLU(), nn.Linear(256, 16))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    return model, optimizer


def steps(model, optimizer, n):
    for _ in range(n):
        x = torch.randn(8, 256)
        loss = nn.functional.cross_entropy(model(x), x[:, :16].argmax(1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return loss.item()


def first_run():
    model, optimizer = build()
    steps(model, optimizer, 3)
    ema = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"model": model.state_dict(), "ema": ema, "optimizer": optimizer.state_dict(), "iter_num": 3, "best": 9.9}, PATH)


first_run()
checkpoint = torch.load(PATH)
model, optimizer = build()
model.load_state_dict(checkpoint["model"])
optimizer.load_state_dict(checkpoint["optimizer"])
iter_num = checkpoint["iter_num"]
while iter_num < 60:
    value = steps(model, optimizer, 5)
    iter_num += 5
    if value < checkpoint["best"]:
        print("iter", iter_num, "loss", round(value, 4))
