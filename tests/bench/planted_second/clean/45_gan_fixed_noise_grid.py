import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(1)

G = nn.Sequential(nn.ConvTranspose2d(16, 32, 4), nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh())
D = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 4))
crit = nn.BCEWithLogitsLoss()
optD = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))
optG = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
fixed_noise = torch.randn(16, 16, 1, 1)
G_losses, D_losses = [], []
grids = []

for i in range(100):
    D.zero_grad()
    real = torch.randn(24, 1, 8, 8).clamp(-1, 1)
    errD_real = crit(D(real).view(-1), torch.ones(24))
    errD_real.backward()
    fake = G(torch.randn(24, 16, 1, 1))
    errD_fake = crit(D(fake.detach()).view(-1), torch.zeros(24))
    errD_fake.backward()
    optD.step()

    G.zero_grad()
    errG = crit(D(fake).view(-1), torch.ones(24))
    errG.backward()
    optG.step()
    G_losses.append(errG.item())
    D_losses.append((errD_real + errD_fake).item())

    if i in (0, 20, 60, 99):  # four pictures for the report
        with torch.no_grad():
            grids.append(G(fixed_noise).cpu())
        print(i, D_losses[-1], G_losses[-1])
