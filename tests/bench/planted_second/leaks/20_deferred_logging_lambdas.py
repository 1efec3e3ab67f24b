import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)


class LazyWriter:
    """add_scalar takes a callable so that .item() does not stall the GPU; flush() evaluates them."""

    def __init__(self):
        self.pending = []
        self.rows = []

    def add_scalar(self, tag, fn, step):
        self.pending.append((tag, fn, step))  # LEAK

    def flush(self):
        self.rows += [(tag, float(fn()), step) for tag, fn, step in self.pending]


gen = nn.Sequential(nn.Linear(16, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128))
disc = nn.Sequential(nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
og = torch.optim.Adam(gen.parameters(), 2e-4, betas=(0.5, 0.999))
od = torch.optim.Adam(disc.parameters(), 2e-4, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()
writer = LazyWriter()
ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)

for step in range(110):
    real = torch.randn(64, 128) * 0.5 + 1
    fake = gen(torch.randn(64, 16))
    d_loss = bce(disc(real), ones) + bce(disc(fake.detach()), zeros)
    od.zero_grad()
    d_loss.backward()
    od.step()

    g_loss = bce(disc(fake), ones)
    og.zero_grad()
    g_loss.backward()
    og.step()

    gap = (real.mean(0) - fake.detach().mean(0)).abs()
    writer.add_scalar("d", lambda v=d_loss.detach(): v, step)
    writer.add_scalar("feature_gap", lambda r=real, f=fake.detach(): (r - f).pow(2).mean(), step)
    if step % 50 == 0:
        print(step, d_loss.item(), g_loss.item(), gap.max().item())
writer.flush()
print(len(writer.rows), "scalars")
