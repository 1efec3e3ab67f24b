import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)


class Tracker:
    """wandb stand-in for machines without a connection: keeps what it is given until finish()."""

    def __init__(self):
        self.scalars = {}
        self.images = {}

    def log(self, values, step):
        for k, v in values.items():
            self.scalars.setdefault(k, []).append((step, v))

    def log_images(self, name, batch, step):
        self.images.setdefault(name, []).append((step, batch))  # LEAK

    def finish(self):
        for k, v in self.scalars.items():
            print(k, "last", round(v[-1][1], 4), "points", len(v))


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU())
        self.d = nn.Sequential(nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1))

    def forward(self, x):
        return self.d(self.e(x))


tracker = Tracker()
ae = AutoEncoder()
opt = torch.optim.Adam(ae.parameters(), lr=2e-3)
LOG_EVERY = 3
for step in range(120):
    x = torch.rand(16, 3, 32, 32)
    y = ae(x)
    loss = nn.functional.l1_loss(y, x)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % LOG_EVERY == 0:
        tracker.log({"l1": loss.item()}, step)
        tracker.log_images("recon", torch.stack([x, y.detach()]), step)
tracker.finish()
