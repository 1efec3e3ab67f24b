import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(19)
G = nn.Sequential(nn.Linear(16, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh())
D = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
og = torch.optim.Adam(G.parameters(), 2e-4, betas=(0.5, 0.999))
od = torch.optim.Adam(D.parameters(), 2e-4, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()
fixed = torch.randn(32, 16)
ones, zeros = torch.ones(32, 1), torch.zeros(32, 1)
snapshot, stats = None, []
for i in range(60):
    real = torch.rand(32, 64)
    fake = G(torch.randn(32, 16))
    ld = bce(D(real), ones) + bce(D(fake.detach()), zeros)
    od.zero_grad()
    ld.backward()
    od.step()
    lg = bce(D(fake), ones)
    og.zero_grad()
    lg.backward()
    og.step()
    with torch.no_grad():
        snapshot = G(fixed)
    stats.append((ld.item(), lg.item(), snapshot.std().item()))
    if i % 20 == 0:
        print(i, *stats[-1])
