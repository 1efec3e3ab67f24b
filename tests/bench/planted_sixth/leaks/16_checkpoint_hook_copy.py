import copy
import os
import tempfile

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Hook:
    def after_iter(self, trainer):
        pass


class LogHook(Hook):
    def __init__(self, period):
        self.period = period

    def after_iter(self, trainer):
        if trainer.iter % self.period == 0:
            print(f"iter {trainer.iter} loss {trainer.loss:.4f}")


class CheckpointHook(Hook):
    def __init__(self, period, out_dir):
        self.period, self.out_dir = period, out_dir

    def after_iter(self, trainer):
        if trainer.iter % self.period:
            return
        state = {
            "iter": trainer.iter,
            "model": copy.deepcopy(trainer.model.state_dict()),
            "optimizer": copy.deepcopy(trainer.optimizer.state_dict()),
        }
        torch.save(state, os.path.join(self.out_dir, "latest.pth"))


class Trainer:
    def __init__(self, model, hooks):
        self.model = model.to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.hooks = hooks
        self.iter = 0

    def train(self, max_iters):
        while self.iter < max_iters:
            x = torch.randn(8, 64, device=device)
            loss = F.mse_loss(self.model(x), x)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.loss = loss.item()
            self.iter += 1
            for hook in self.hooks:
                hook.after_iter(self)


def build_autoencoder(width=640):
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 64),
    )  # fmt: skip


def main():
    with tempfile.TemporaryDirectory() as out_dir:
        trainer = Trainer(build_autoencoder(), [LogHook(20), CheckpointHook(20, out_dir)])
        trainer.train(80)
        print(sorted(os.listdir(out_dir)))


if __name__ == "__main__":
    main()
