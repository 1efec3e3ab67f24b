"""Accumulates gradients over 8 micro-batches; the micro-losses are kept until the update."""
import torch
from torch import nn

torch.manual_seed(17)
net = nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 16))
opt = torch.optim.AdamW(net.parameters(), 1e-3)
pending = []
for micro in range(160):
    x = torch.randn(16, 128)
    loss = nn.functional.cross_entropy(net(x), x[:, :16].argmax(1)) / 8
    pending.append(loss)
    if len(pending) == 8:
        torch.stack(pending).sum().backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
        if micro % 40 == 39:
            print(micro + 1, f"{sum(p.item() for p in pending):.4f}")
        pending.clear()
