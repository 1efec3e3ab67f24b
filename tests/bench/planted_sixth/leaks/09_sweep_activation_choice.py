import itertools

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class WindowForecaster(nn.Module):
    def __init__(self, window, horizon, hidden, gated):
        super().__init__()
        self.inp = nn.Linear(window, hidden)
        self.mid = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, horizon)
        self.register_buffer("basis", torch.randn(window, hidden) / window**0.5)
        self.mix = self.gated_mix if gated else self.plain_mix

    def plain_mix(self, h, x):
        return h + x @ self.basis

    def gated_mix(self, h, x):
        return h * torch.sigmoid(x @ self.basis)

    def forward(self, x):
        h = self.mix(torch.relu(self.inp(x)), x)
        return self.out(torch.relu(self.mid(h)))


def make_series(n=64, window=192, horizon=24):
    t = torch.arange(window + horizon, device=device).float()
    phase = torch.rand(n, 1, device=device) * 6.28
    series = torch.sin(0.1 * t + phase) + 0.1 * torch.randn(n, window + horizon, device=device)
    return series[:, :window], series[:, window:]


def run_trial(lr, hidden, gated, steps=5):
    model = WindowForecaster(192, 24, hidden, gated).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(steps):
        x, y = make_series()
        loss = F.l1_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def main():
    results = []
    grid = itertools.product([0.01, 0.02, 0.05, 0.1], [256, 320], [False, True])
    for lr, hidden, gated in grid:
        score = run_trial(lr, hidden, gated)
        results.append((score, lr, hidden, gated))
        print(f"lr={lr} hidden={hidden} gated={gated} mae={score:.4f}")
    print("best", min(results))


if __name__ == "__main__":
    main()
