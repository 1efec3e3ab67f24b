"""Small GAN; a perceptual distance is followed for monitoring only."""
from dataclasses import dataclass, field
import torch
from torch import nn

torch.manual_seed(7)


@dataclass
class Telemetry:
    d: float = 0.0
    g: float = 0.0
    perceptual: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    n: int = 0

    def note(self, d, g, p):
        self.d += d
        self.g += g
        self.perceptual = self.perceptual + p  # LEAK
        self.n += 1


gen = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 3 * 16 * 16), nn.Tanh())
disc = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16 * 64, 1))
eye = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
og = torch.optim.Adam(gen.parameters(), 2e-4, betas=(0.5, 0.999))
od = torch.optim.Adam(disc.parameters(), 2e-4, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()
tele = Telemetry()

for it in range(90):
    real = torch.randn(24, 3, 16, 16).tanh()
    z = torch.randn(24, 32)
    fake = gen(z).view(-1, 3, 16, 16)
    dl = bce(disc(real), torch.ones(24, 1)) + bce(disc(fake.detach()), torch.zeros(24, 1))
    od.zero_grad()
    dl.backward()
    od.step()
    gl = bce(disc(fake), torch.ones(24, 1))
    og.zero_grad()
    gl.backward()
    og.step()
    shown = gen(z).view(-1, 3, 16, 16)
    tele.note(dl.item(), gl.item(), (eye(shown) - eye(real)).pow(2).mean())
    if it % 30 == 29:
        print(f"it {it + 1} d {tele.d / tele.n:.3f} g {tele.g / tele.n:.3f} p {float(tele.perceptual) / tele.n:.4f}")
