import torch
from torch import nn

torch.manual_seed(126)
torch.set_num_threads(1)


def folds(n, k):
    order = torch.randperm(n)
    for part in order.chunk(k):
        mask = torch.ones(n, dtype=torch.bool)
        mask[part] = False
        yield mask, ~mask


def fit_and_score(x, y, train, test, width=256):
    net = nn.Sequential(nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    xs, ys = x[train], y[train]
    for _ in range(20):
        loss = nn.functional.mse_loss(net(xs).squeeze(1), ys)
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        return nn.functional.mse_loss(net(x[test]).squeeze(1), y[test]).item()


def main(k=10):
    x = torch.randn(300, 24)
    y = x[:, 0] * x[:, 1] + 0.1 * torch.randn(300)
    scores = []
    for i, (train, test) in enumerate(folds(len(x), k)):
        scores.append(fit_and_score(x, y, train, test))
        print(f"fold {i}: {scores[-1]:.4f}")
    mean = sum(scores) / k
    std = (sum((s - mean) ** 2 for s in scores) / (k - 1)) ** 0.5
    print(f"{mean:.4f} +- {std:.4f}")


main()
