import numpy as np
import torch
import torch.nn as nn

np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

X = torch.tensor(np.random.randn(400, 50), dtype=torch.float32)
y = (X[:, 0] * X[:, 1] > 0).float()


def kfold(n, k):
    idx = np.random.permutation(n)
    for part in np.array_split(idx, k):
        yield np.setdiff1d(idx, part), part


def make_model():
    return nn.Sequential(nn.Linear(50, 300), nn.ReLU(), nn.Dropout(0.2), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 1))


fold_results = []
for fold, (tr, va) in enumerate(kfold(len(X), 10)):
    model = make_model().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    xt, yt = X[tr].to(device), y[tr].to(device)
    for epoch in range(6):
        loss = nn.functional.binary_cross_entropy_with_logits(model(xt).squeeze(1), yt)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        acc = ((model(X[va].to(device)).squeeze(1) > 0).float() == y[va].to(device)).float().mean().item()
    fold_results.append({"fold": fold, "model": model, "optimizer": optimizer, "acc": acc})  # LEAK
    print(f"fold {fold}: {acc:.3f}")

print("mean accuracy", np.mean([r["acc"] for r in fold_results]))
