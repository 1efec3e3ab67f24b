import copy
import gc
import itertools

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class NBeats(nn.Module):
    def __init__(self, window, horizon, hidden, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(window, hidden), nn.ReLU(), nn.Linear(hidden, window + horizon))
             for _ in range(blocks)]
        )  # fmt: skip
        self.window = window

    def forward(self, x):
        forecast = 0
        for block in self.blocks:
            theta = block(x)
            x = x - theta[:, : self.window]
            forecast = forecast + theta[:, self.window :]
        return forecast


def series(n=64, window=168, horizon=24):
    t = torch.arange(window + horizon, device=device)
    s = torch.sin(0.26 * t + torch.rand(n, 1, device=device) * 6.28) + 0.1 * torch.randn(n, len(t), device=device)
    return s[:, :window], s[:, window:]


def objective(lr, hidden, blocks):
    model = NBeats(168, 24, hidden, blocks).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    best, best_state = float("inf"), None
    for epoch in range(3):
        for _ in range(3):
            x, y = series()
            loss = F.l1_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if loss.item() < best:
            best, best_state = loss.item(), copy.deepcopy(model.state_dict())
    return best, {k: v.cpu() for k, v in best_state.items()}


def main():
    champion = (float("inf"), None, None)
    for lr, hidden, blocks in itertools.product([1e-3, 3e-3], [256, 384], [2, 3]):
        score, state = objective(lr, hidden, blocks)
        if score < champion[0]:
            champion = (score, (lr, hidden, blocks), state)
        gc.collect()
        print(f"lr {lr} hidden {hidden} blocks {blocks}: {score:.4f}")
    print("best", champion[:2])


if __name__ == "__main__":
    main()
