import numpy as np
import torch
from torch import nn

np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)


def draw(points, size=256):
    """scatter plot as an RGB canvas"""
    canvas = np.full((size, size, 3), 255, dtype=np.uint8)
    xy = ((points.clip(-2, 2) + 2) / 4 * (size - 1)).astype(int)
    canvas[xy[:, 1], xy[:, 0]] = (200, 30, 30)
    return canvas


class Video:
    frames = []

    @classmethod
    def add(cls, frame):
        cls.frames.append(frame)  # LEAK


G = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
D = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
g_opt, d_opt = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)

for step in range(200):
    angle = torch.rand(128) * 6.283
    real = torch.stack([angle.cos(), angle.sin()], 1)
    fake = G(torch.randn(128, 8))
    d_loss = nn.functional.softplus(-D(real)).mean() + nn.functional.softplus(D(fake.detach())).mean()
    d_opt.zero_grad()
    d_loss.backward()
    d_opt.step()
    g_loss = nn.functional.softplus(-D(fake)).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    Video.add(draw(fake.detach().numpy()))
    if step % 50 == 0:
        print(step, d_loss.item(), g_loss.item())
print(len(Video.frames), "frames")
