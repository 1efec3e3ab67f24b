"""Sequence length grows in stages until 60 % of the run, then stays."""
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(10)
net = nn.Sequential(nn.Embedding(50, 64), nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0),
                    nn.Linear(64, 50))
opt = torch.optim.Adam(net.parameters(), 1e-3)
N = 90
for step in range(N):
    length = 16 + int(min(1.0, step / (0.6 * N)) * 112)
    ids = torch.randint(0, 50, (8, length))
    loss = F.cross_entropy(net(ids).flatten(0, 1), ids.flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 18 == 17:
        print(step + 1, length, f"{loss.item():.4f}")
