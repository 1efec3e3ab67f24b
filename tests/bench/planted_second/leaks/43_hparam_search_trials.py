import itertools
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Trial:
    lr: float
    width: int
    dropout: float
    model: nn.Module = None
    history: list = field(default_factory=list)

    def run(self, steps=12):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(40, self.width), nn.ReLU(), nn.Dropout(self.dropout),
            nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, 5),
        )
        opt = torch.optim.Adam(self.model.parameters(), lr=self.lr)
        for _ in range(steps):
            x = torch.randn(64, 40)
            loss = F.cross_entropy(self.model(x), x[:, :5].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            self.history.append(loss.item())
        return self.history[-1]


class GridSearch:
    def __init__(self, **space):
        self.space = space
        self.trials = []

    def run(self):
        keys = list(self.space)
        for values in itertools.product(*self.space.values()):
            trial = Trial(**dict(zip(keys, values)))
            score = trial.run()
            self.trials.append((score, trial))  # LEAK
        return min(self.trials, key=lambda t: t[0])


if __name__ == "__main__":
    torch.set_num_threads(1)
    search = GridSearch(lr=[3e-4, 1e-3, 3e-3], width=[256], dropout=[0.0, 0.1, 0.2, 0.3, 0.5])
    score, best = search.run()
    print(f"{len(search.trials)} trials, best {score:.4f} at lr={best.lr} dropout={best.dropout}")
