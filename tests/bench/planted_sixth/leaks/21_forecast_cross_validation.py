from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class LoadForecaster(nn.Module):
    def __init__(self, features=8, hidden=128, horizon=12):
        super().__init__()
        self.rnn = nn.GRU(features, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, horizon)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.head(out[:, -1])


@dataclass
class FoldResult:
    fold: int
    mae: float
    estimator: "Estimator" = field(repr=False)


class Estimator:
    def __init__(self, lr=1e-3):
        self.model = LoadForecaster().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)

    def fit(self, x, y, epochs, batch_size=32):
        for _ in range(epochs):
            for i in range(0, len(x), batch_size):
                loss = F.l1_loss(self.model(x[i : i + batch_size]), y[i : i + batch_size])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
        return self

    @torch.no_grad()
    def score(self, x, y):
        return F.l1_loss(self.model(x), y).item()


def cross_validate(x, y, n_splits):
    results = []
    fold_size = len(x) // n_splits
    for fold in range(n_splits):
        val = torch.arange(fold * fold_size, (fold + 1) * fold_size)
        mask = torch.ones(len(x), dtype=torch.bool)
        mask[val] = False
        estimator = Estimator().fit(x[mask], y[mask], epochs=1)
        mae = estimator.score(x[val], y[val])
        results.append(FoldResult(fold, mae, estimator))
        print(results[-1])
    return results


def main():
    x = torch.randn(160, 24, 8, device=device)
    y = x[:, -12:, 0] * 0.5 + x[:, :12, 1] * 0.2
    results = cross_validate(x, y, n_splits=10)
    maes = torch.tensor([r.mae for r in results])
    print(f"mae {maes.mean():.4f} +- {maes.std():.4f}")


if __name__ == "__main__":
    main()
