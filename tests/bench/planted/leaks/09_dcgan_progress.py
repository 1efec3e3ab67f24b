from __future__ import print_function
import torch
import torch.nn as nn


class Generator(nn.Module):
    def __init__(self, nz=32, ngf=16):
        super(Generator, self).__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 2, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.main(z)


class Discriminator(nn.Module):
    def __init__(self, ndf=16):
        super(Discriminator, self).__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, ndf, 4, 2, 1), nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf, ndf * 2, 4, 2, 1), nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf * 2, 1, 4, 1, 0),
        )

    def forward(self, x):
        return self.main(x).view(-1)


torch.set_num_threads(1)
torch.manual_seed(999)
netG, netD = Generator(), Discriminator()
fixed_noise = torch.randn(16, 32, 1, 1)
bce = nn.BCEWithLogitsLoss()
optD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
optG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
img_list, G_losses, D_losses = [], [], []
for i in range(40):
    real = torch.rand(8, 1, 16, 16) * 2 - 1
    fake = netG(torch.randn(8, 32, 1, 1))
    errD = bce(netD(real), torch.ones(8)) + bce(netD(fake.detach()), torch.zeros(8))
    optD.zero_grad(); errD.backward(); optD.step()
    errG = bce(netD(fake), torch.ones(8))
    optG.zero_grad(); errG.backward(); optG.step()
    G_losses.append(errG.item()); D_losses.append(errD.item())
    img_list.append(netG(fixed_noise))  # LEAK
    if i % 10 == 0:
        print('[%d] Loss_D: %.4f Loss_G: %.4f' % (i, errD.item(), errG.item()))
print(torch.cat(img_list).std().item())
