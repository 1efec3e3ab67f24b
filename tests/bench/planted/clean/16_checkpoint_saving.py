import os
import tempfile
import torch
from torch import nn


class Saver:
    def __init__(self, folder, keep=2):
        self.folder, self.keep, self.files = folder, keep, []

    def save(self, step, model, opt):
        path = os.path.join(self.folder, f"step{step}.pt")
        torch.save({"step": step, "model": {k: v.cpu() for k, v in model.state_dict().items()},
                    "opt": opt.state_dict()}, path)
        self.files.append(path)
        while len(self.files) > self.keep:
            os.remove(self.files.pop(0))


torch.set_num_threads(1)
torch.manual_seed(15)
with tempfile.TemporaryDirectory() as tmp:
    model = nn.Sequential(nn.Linear(32, 400), nn.ReLU(), nn.Linear(400, 32))
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    saver = Saver(tmp)
    for step in range(1, 81):
        x = torch.randn(16, 32)
        loss = (model(x) - x).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 10 == 0:
            saver.save(step, model, opt)
            print(step, loss.item(), len(os.listdir(tmp)))
