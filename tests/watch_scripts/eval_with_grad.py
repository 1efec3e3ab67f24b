"""model.eval() is there, torch.no_grad() is not."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)


def batch(n):
    return torch.randn(n, 32), torch.randint(8, (n,))


def evaluate():
    model.eval()
    total = 0.0
    for _ in range(5):
        inputs, targets = batch(256)
        outputs = model(inputs)  # the mistake
        total += criterion(outputs, targets).item()
    model.train()
    return total / 5


for epoch in range(2):
    for _ in range(4):
        inputs, targets = batch(64)
        optimizer.zero_grad()
        criterion(model(inputs), targets).backward()
        optimizer.step()
    print(f"epoch {epoch}: {evaluate():.3f}")
