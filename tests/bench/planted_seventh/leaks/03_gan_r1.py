"""Small GAN with the R1 regulariser on real images."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def make_generator(z_dim=32, ch=16):
    return nn.Sequential(
        nn.Linear(z_dim, ch * 8 * 8),
        nn.Unflatten(1, (ch, 8, 8)),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(ch, ch, 3, padding=1),
        nn.SiLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(ch, 3, 3, padding=1),
        nn.Tanh(),
    )


def make_discriminator(ch=16):
    return nn.Sequential(
        nn.Conv2d(3, ch, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(ch, ch * 2, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(ch * 2 * 8 * 8, 1),
    )


class Trainer:
    def __init__(self, r1_gamma=1.0):
        self.gen = make_generator().to(device)
        self.disc = make_discriminator().to(device)
        self.opt_g = torch.optim.Adam(self.gen.parameters(), lr=2e-4, betas=(0.0, 0.99))
        self.opt_d = torch.optim.Adam(self.disc.parameters(), lr=2e-4, betas=(0.0, 0.99))
        self.r1_gamma = r1_gamma

    def regularise(self, real):
        real.requires_grad_(True)
        self.opt_d.zero_grad()
        self.disc(real).sum().backward(create_graph=True)
        penalty = real.grad.pow(2).flatten(1).sum(1).mean()
        self.opt_d.zero_grad()
        (self.r1_gamma / 2 * penalty).backward()
        self.opt_d.step()
        return penalty.item()

    def step(self, real):
        z = torch.randn(len(real), 32, device=device)
        fake = self.gen(z)
        d_loss = F.softplus(self.disc(fake.detach())).mean() + F.softplus(-self.disc(real)).mean()
        self.opt_d.zero_grad()
        d_loss.backward()
        self.opt_d.step()
        r1 = self.regularise(real)
        g_loss = F.softplus(-self.disc(fake)).mean()
        self.opt_g.zero_grad()
        g_loss.backward()
        self.opt_g.step()
        return d_loss.item(), g_loss.item(), r1


if __name__ == "__main__":
    torch.manual_seed(0)
    trainer = Trainer()
    for it in range(48):
        batch = torch.rand(16, 3, 32, 32, device=device) * 2 - 1
        d_loss, g_loss, r1 = trainer.step(batch)
        if it % 12 == 0:
            print(f"it {it}: d {d_loss:.3f} g {g_loss:.3f} r1 {r1:.4f}")
