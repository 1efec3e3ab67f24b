"""Evaluation in batches eight times as large as in training; argmax kept for the epoch only."""
import torch
from torch import nn

torch.manual_seed(28)
net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1500))
opt = torch.optim.AdamW(net.parameters(), 1e-3)
X, Y = torch.randn(1800, 64), torch.randint(0, 1500, (1800,))
for epoch in range(5):
    net.train()
    for i in torch.arange(800).split(32):
        loss = nn.functional.cross_entropy(net(X[i]), Y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    preds = []
    with torch.no_grad():
        for i in torch.arange(800, 1800).split(250):
            preds.append(net(X[i]).argmax(-1))
    print(epoch, f"{loss.item():.4f}", int((torch.cat(preds) == Y[800:]).sum()))
