import gc

import numpy as np
import torch
from torch import nn

np.random.seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
X = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
y = (X[:, :3].sum(1) > 0).long()


def train_fold(train_idx, val_idx, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(40, 250), nn.ReLU(), nn.Linear(250, 250), nn.ReLU(), nn.Linear(250, 2)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    xt, yt = X[train_idx].to(device), y[train_idx].to(device)
    curve = []
    for epoch in range(8):
        loss = nn.functional.cross_entropy(model(xt), yt)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    with torch.no_grad():
        acc = (model(X[val_idx].to(device)).argmax(1).cpu() == y[val_idx]).float().mean().item()
    return acc, curve


folds = np.array_split(np.random.permutation(len(X)), 12)
results = []
for k, val_idx in enumerate(folds):
    train_idx = np.concatenate([f for j, f in enumerate(folds) if j != k])
    results.append(train_fold(train_idx, val_idx, seed=k))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(f"fold {k}: acc {results[-1][0]:.3f}, loss {results[-1][1][-1]:.3f}")
print("cv", np.mean([r[0] for r in results]))
