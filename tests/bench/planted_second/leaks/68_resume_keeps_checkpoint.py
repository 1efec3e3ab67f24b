import copy
import os
import tempfile

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build():
    return nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 10)).to(device)


class Experiment:
    def __init__(self, resume=None):
        self.model = build()
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.start = 0
        if resume:
            self.checkpoint = torch.load(resume, map_location=device)  # LEAK
            self.model.load_state_dict(self.checkpoint["model"])
            self.opt.load_state_dict(copy.deepcopy(self.checkpoint["optimizer"]))
            self.start = self.checkpoint["step"]

    def run(self, until):
        for step in range(self.start, until):
            x = torch.randn(32, 256, device=device)
            loss = nn.functional.cross_entropy(self.model(x), x[:, :10].argmax(1))
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            if step % 10 == 0:
                print(step, loss.item())
        return until

    def save(self, path, step):
        torch.save({"model": self.model.state_dict(), "optimizer": self.opt.state_dict(), "step": step}, path)


path = os.path.join(tempfile.mkdtemp(), "last.pt")
first = Experiment()
first.save(path, first.run(20))
del first  # "the machine was taken away"

again = Experiment(resume=path)
again.run(45)
