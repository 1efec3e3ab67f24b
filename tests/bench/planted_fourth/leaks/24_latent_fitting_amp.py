"""Fits a latent matrix to each image with a frozen decoder (auto-decoding)."""
import torch
from torch import nn

torch.manual_seed(24)
torch.set_num_threads(1)


class Decoder(nn.Module):
    def __init__(self, k=32):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(k, 64) * 0.2)
        self.out = nn.Linear(64, 48)

    def forward(self, z):
        return self.out(torch.relu(z @ self.mix))


def fit(decoder, target, steps=2):
    z = nn.Parameter(torch.zeros(len(target), 32))
    opt = torch.optim.SGD([z], lr=5.0)
    for _ in range(steps):
        loss = (decoder(z).float() - target).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


def sweep(decoder, images):
    errors = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for i in range(images):
            target = torch.rand(900, 48)
            errors.append(fit(decoder, target))
            if i % 20 == 0:
                print(i, round(errors[-1], 5))
    return sum(errors) / len(errors)


decoder = Decoder()
for p in decoder.parameters():
    p.requires_grad_(False)
print("mean", sweep(decoder, 80))
