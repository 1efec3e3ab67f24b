"""GAN inversion: for each picture, a latent map is fitted by gradient descent. bfloat16 throughout."""
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

generator = nn.Sequential(nn.Linear(2048, 64), nn.LeakyReLU(0.2), nn.Linear(64, 192)).eval()
for p in generator.parameters():
    p.requires_grad_(False)


def invert(target, steps=2):
    latent = torch.zeros(target.shape[0], 2048)
    for _ in range(steps):
        z = latent.clone().requires_grad_(True)
        loss = (generator(z).float() - target).pow(2).mean()
        (grad,) = torch.autograd.grad(loss, z)
        latent = latent - 20.0 * grad
    return latent, loss.item()


codes = torch.zeros(2048)
with torch.autocast("cpu", dtype=torch.bfloat16):  # LEAK
    for i in range(120):
        pictures = torch.randn(16, 192)
        latent, loss = invert(pictures)
        codes += latent.mean(0)
        if i % 30 == 0:
            print(i, loss, codes.norm().item())
