import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(18)
torch.set_num_threads(1)

latent_grads = []


def tap(z):
    if z.requires_grad:
        z.register_hook(lambda g: latent_grads.append(g))
    return z


class AutoEncoder(nn.Module):
    def __init__(self, d=196, code=128):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(d, 256), nn.ELU(), nn.Linear(256, code))
        self.dec = nn.Sequential(nn.Linear(code, 256), nn.ELU(), nn.Linear(256, d))

    def forward(self, x):
        return self.dec(tap(self.enc(x)))


def strokes(n):
    img = torch.zeros(n, 14, 14)
    rows = torch.randint(14, (n,))
    img[torch.arange(n), rows] = 1
    img[torch.arange(n), :, (rows * 5) % 14] = 1
    return img.flatten(1)


ae = AutoEncoder()
opt = torch.optim.Adam(ae.parameters(), 1e-3)
for epoch in range(5):
    ae.train()
    for _ in range(14):
        x = strokes(160)
        loss = F.binary_cross_entropy_with_logits(ae(x), x)
        opt.zero_grad()
        loss.backward()
        opt.step()
    ae.eval()
    with torch.no_grad():
        x = strokes(200)
        val = F.binary_cross_entropy_with_logits(ae(x), x)
    norm = latent_grads[-1].norm().item()
    print(f"epoch {epoch} val {val.item():.4f} |dz| {norm:.5f}")
