import torch
from torch import nn

torch.manual_seed(137)
torch.set_num_threads(1)
bce = nn.functional.binary_cross_entropy_with_logits


class Studio:
    def __init__(self, latent=24):
        self.latent = latent
        self.g = nn.Sequential(nn.Linear(latent, 32 * 16), nn.ReLU(), nn.Unflatten(1, (32, 4, 4)), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1))
        self.d = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(512, 1))
        self.og, self.od = (torch.optim.Adam(m.parameters(), 3e-4, betas=(0.5, 0.99)) for m in (self.g, self.d))
        self.fixed = torch.randn(64, latent)
        self.grid, self.history = None, {"g": [], "d": []}

    def real(self, n=32):
        x = torch.zeros(n, 1, 16, 16)
        for img, at in zip(x, torch.randint(2, 12, (n,))):
            img[0, at : at + 3] = 1
        return x

    def step(self):
        real, fake = self.real(), self.g(torch.randn(32, self.latent))
        one, zero = torch.ones(32, 1), torch.zeros(32, 1)
        d_loss = bce(self.d(real), one) + bce(self.d(fake.detach()), zero)
        self.od.zero_grad()
        d_loss.backward()
        self.od.step()
        g_loss = bce(self.d(fake), one)
        self.og.zero_grad()
        g_loss.backward()
        self.og.step()
        self.history["g"].append(g_loss.item())
        self.history["d"].append(d_loss.item())
        with torch.no_grad():
            self.grid = self.g(self.fixed)


studio = Studio()
for i in range(60):
    studio.step()
print(studio.history["g"][::15], studio.grid.shape)
