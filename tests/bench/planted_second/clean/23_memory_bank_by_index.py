import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(2)
torch.set_num_threads(1)

N, D = 600, 384
data = torch.randn(N, 32)
encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, D))
opt = torch.optim.SGD(encoder.parameters(), lr=0.1)
bank = {}  # sample -> its last feature

for epoch in range(10):
    for idx in torch.randperm(N).split(50):
        z = F.normalize(encoder(data[idx]), dim=1)
        known = [bank[i] for i in idx.tolist() if i in bank]
        if known:
            old = torch.stack(known)
            loss = F.cross_entropy(z[: len(known)] @ old.t() / 0.2, torch.arange(len(known)))
        else:
            loss = F.cross_entropy(z @ z.detach().t() / 0.2, torch.arange(len(idx)))
        opt.zero_grad()
        loss.backward()
        opt.step()
        for i, f in zip(idx.tolist(), z.detach()):
            bank[i] = f.clone()
    print(epoch, len(bank), loss.item())
