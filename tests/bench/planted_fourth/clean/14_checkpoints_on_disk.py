import tempfile
from pathlib import Path

import torch
from torch import nn

torch.manual_seed(114)
torch.set_num_threads(1)


class Checkpointer:
    def __init__(self, folder, keep=2):
        self.folder, self.keep, self.saved = Path(folder), keep, []

    def save(self, epoch, model, opt):
        path = self.folder / f"epoch-{epoch:03d}.pt"
        torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "epoch": epoch}, path)
        self.saved.append(path)
        while len(self.saved) > self.keep:
            self.saved.pop(0).unlink()

    def latest(self):
        return torch.load(self.saved[-1], map_location="cpu")


def main():
    model = nn.Sequential(nn.Linear(40, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 2))
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    with tempfile.TemporaryDirectory() as folder:
        keeper = Checkpointer(folder)
        for epoch in range(12):
            for _ in range(5):
                x = torch.randn(64, 40)
                loss = nn.functional.cross_entropy(model(x), (x[:, 0] > x[:, 1]).long())
                opt.zero_grad()
                loss.backward()
                opt.step()
            keeper.save(epoch, model, opt)
        print(loss.item(), keeper.latest()["epoch"], [p.name for p in keeper.saved])


main()
