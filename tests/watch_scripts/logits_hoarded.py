"""Validation that computes its accuracy from all logits at once."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
CLASSES = 512


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, CLASSES))

    def forward(self, x):
        return self.body(x)


def validate(model, loader):
    model.eval()
    all_logits, all_labels = [], []
    with torch.no_grad():
        for x, y in loader:
            all_logits.append(model(x))  # the mistake
            all_labels.append(y)
    model.train()
    logits, labels = torch.cat(all_logits), torch.cat(all_labels)
    return (logits.argmax(-1) == labels).float().mean().item()


def make_loader(n, batch_size):
    data = TensorDataset(torch.randn(n, 32), torch.randint(CLASSES, (n,)))
    return DataLoader(data, batch_size=batch_size, shuffle=True)


model = Classifier()
optimizer = torch.optim.Adam(model.parameters())
train_loader, val_loader = make_loader(256, 64), make_loader(1536, 128)
for epoch in range(3):
    for x, y in train_loader:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, validate(model, val_loader))
