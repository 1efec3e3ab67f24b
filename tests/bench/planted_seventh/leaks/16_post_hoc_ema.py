"""Flow matching on toy vectors with two averaged models and a regular checkpoint."""

import copy
import os
import tempfile

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Velocity(nn.Module):
    def __init__(self, dim=32, hidden=512):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim + 1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim)
        )

    def forward(self, x, t):
        return self.net(torch.cat([x, t[:, None]], dim=1))


class PowerEMA:
    def __init__(self, model, gamma):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.gamma = gamma

    @torch.no_grad()
    def update(self, model, step):
        beta = (1 - 1 / (step + 1)) ** (1 + self.gamma)
        for e, p in zip(self.model.parameters(), model.parameters(), strict=True):
            e.lerp_(p, 1 - beta)


class Trainer:
    def __init__(self, folder):
        self.folder = folder
        self.model = Velocity().to(device)
        self.emas = [PowerEMA(self.model, g) for g in (6.9, 16.9)]
        self.opt = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def checkpoint(self, step):
        state = {
            "model": self.model.state_dict(),
            "emas": [e.model.state_dict() for e in self.emas],
            "opt": self.opt.state_dict(),
        }
        snapshot = copy.deepcopy(state)
        torch.save(snapshot, os.path.join(self.folder, f"{step}.pt"))

    def train(self, steps, every):
        for step in range(steps):
            x1 = torch.randn(64, 32, device=device).abs()
            x0 = torch.randn_like(x1)
            t = torch.rand(len(x1), device=device)
            xt = torch.lerp(x0, x1, t[:, None])
            loss = F.mse_loss(self.model(xt, t), x1 - x0)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            for ema in self.emas:
                ema.update(self.model, step)
            if (step + 1) % every == 0:
                self.checkpoint(step + 1)
                print(f"step {step + 1} loss {loss.item():.4f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(folder).train(steps=40, every=10)
