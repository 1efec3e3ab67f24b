"""Random search over settings with a short training per trial (tabular regression)."""

import random
from dataclasses import dataclass

import torch
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Learner:
    def __init__(self, width, lr):
        self.model = nn.Sequential(nn.Linear(32, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.model.append(nn.Linear(width, 1)).to(device)
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=lr)

    def fit(self, x, y, epochs, batch=64):
        for _ in range(epochs):
            for idx in torch.randperm(len(x), device=device).split(batch):
                loss = nn.functional.mse_loss(self.model(x[idx]).squeeze(1), y[idx])
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()
        return self

    @torch.no_grad()
    def score(self, x, y):
        return nn.functional.mse_loss(self.model(x).squeeze(1), y).item()


@dataclass
class Trial:
    number: int
    params: dict
    value: float
    learner: Learner


class Study:
    def __init__(self, seed=0):
        self.rng = random.Random(seed)
        self.trials = []

    def optimize(self, objective, n_trials):
        for number in range(n_trials):
            params = {"width": self.rng.choice([160, 192, 224]), "lr": 10 ** self.rng.uniform(-4, -2)}
            value, learner = objective(params)
            self.trials.append(Trial(number, params, value, learner))
            print(f"trial {number} {params} mse {value:.4f}")

    @property
    def best(self):
        return min(self.trials, key=lambda t: t.value)


def main():
    torch.manual_seed(0)
    x = torch.randn(320, 32, device=device)
    y = x[:, :4].sum(1) + 0.1 * torch.randn(320, device=device)

    def objective(params):
        learner = Learner(**params).fit(x[:256], y[:256], epochs=2)
        return learner.score(x[256:], y[256:]), learner

    study = Study()
    study.optimize(objective, n_trials=12)
    print("best", study.best.params, study.best.value)


if __name__ == "__main__":
    main()
