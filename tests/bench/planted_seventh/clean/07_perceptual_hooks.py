"""Perceptual loss with forward hooks that are removed after use."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def captured(encoder, layers):
    features = {}
    handles = []
    modules = dict(encoder.named_modules())
    for name in layers:
        handles.append(modules[name].register_forward_hook(lambda m, a, out, name=name: features.update({name: out})))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def perceptual_loss(encoder, pred, target, layers=("1", "3")):
    with captured(encoder, layers) as wanted, torch.no_grad():
        encoder(target)
    with captured(encoder, layers) as got:
        encoder(pred)
    return sum(F.mse_loss(got[n], wanted[n]) for n in layers)


torch.manual_seed(0)
encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
encoder = encoder.eval().requires_grad_(False).to(device)
model = nn.Sequential(nn.Conv2d(3, 12, 4, 4), nn.GELU(), nn.ConvTranspose2d(12, 3, 4, 4), nn.Sigmoid()).to(device)
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
for step in range(48):
    images = torch.rand(8, 3, 40, 40, device=device)
    recon = model(images)
    loss = F.l1_loss(recon, images) + 0.1 * perceptual_loss(encoder, recon, images)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 12 == 0:
        print(f"step {step} loss {loss.item():.4f}")
