"""Save and resume training; the checkpoint is read in a function and goes away with it."""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Run:
    def __init__(self):
        self.model = nn.Sequential(nn.Linear(96, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, 10))
        self.model.to(device)
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.step = 0

    def save(self, path):
        torch.save({"model": self.model.state_dict(), "opt": self.opt.state_dict(), "step": self.step}, path)

    def resume(self, path):
        state = torch.load(path, map_location="cpu")
        self.model.load_state_dict(state["model"])
        self.opt.load_state_dict(state["opt"])
        self.step = state["step"]

    def train(self, until):
        while self.step < until:
            y = torch.randint(10, (32,), device=device)
            x = torch.randn(32, 96, device=device) + y[:, None] / 10
            loss = F.cross_entropy(self.model(x), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.step += 1
            if self.step % 10 == 0:
                print(f"step {self.step} loss {loss.item():.4f}")


def first_part(path):
    run = Run()
    run.train(until=10)
    run.save(path)


if __name__ == "__main__":
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        first_part(path)
        run = Run()
        run.resume(path)
        run.train(until=50)
        run.save(path)
