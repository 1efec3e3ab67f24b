import torch
from torch import nn


def train_fold(xtr, ytr, xte, yte, epochs=3):
    net = nn.Sequential(nn.Linear(xtr.size(1), 192), nn.ReLU(), nn.Linear(192, 3))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(epochs):
        for idx in torch.randperm(len(xtr)).split(40):
            loss = nn.functional.cross_entropy(net(xtr[idx]), ytr[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
    with torch.no_grad():
        return (net(xte).argmax(1) == yte).float().mean().item()


def kfold(x, y, k):
    parts = torch.randperm(len(x)).chunk(k)
    for i in range(k):
        test = parts[i]
        train = torch.cat([p for j, p in enumerate(parts) if j != i])
        yield train, test


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(34)
    X = torch.randn(200, 30)
    Y = X[:, :3].argmax(1)
    scores = []
    for tr, te in kfold(X, Y, 8):
        scores.append(train_fold(X[tr], Y[tr], X[te], Y[te]))
        print("fold", len(scores), scores[-1])
    print("mean", sum(scores) / len(scores))
