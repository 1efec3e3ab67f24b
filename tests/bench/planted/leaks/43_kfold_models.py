import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Subset, TensorDataset


def make_net(width):
    return nn.Sequential(nn.Linear(20, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                         nn.Linear(width, 3))


def folds(n, k):
    idx = torch.randperm(n)
    for part in idx.chunk(k):
        mask = torch.ones(n, dtype=torch.bool)
        mask[part] = False
        yield mask.nonzero().squeeze(1).tolist(), part.tolist()


def fit(net, loader):
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for x, y in loader:
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return opt


def accuracy(net, x, y):
    net.eval()
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


torch.set_num_threads(1)
torch.manual_seed(90)
X = torch.randn(240, 20)
Y = X[:, :3].argmax(1)
data = TensorDataset(X, Y)
trials = []
for width in (160, 192, 224):
    for tr, te in folds(len(data), 6):
        net = make_net(width)
        opt = fit(net, DataLoader(Subset(data, tr), batch_size=40, shuffle=True))
        trials.append({"width": width, "acc": accuracy(net, X[te], Y[te]), "model": net, "optim": opt})  # LEAK
for width in (160, 192, 224):
    accs = [t["acc"] for t in trials if t["width"] == width]
    print(width, sum(accs) / len(accs))
