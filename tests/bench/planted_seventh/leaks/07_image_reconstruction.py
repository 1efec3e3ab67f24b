"""Image reconstruction with a perceptual loss from a frozen encoder."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class FeatureExtractor:
    """Collects unit-length features of the named layers of an encoder."""

    def __init__(self, encoder, layers):
        self.encoder = encoder
        self.features = {}
        modules = dict(encoder.named_modules())
        for name in layers:
            modules[name].register_forward_hook(self._save(name))

    def _save(self, name):
        def hook(module, args, output):
            self.features[name] = F.normalize(output.flatten(2), dim=1)

        return hook

    def run(self, x):
        self.features = {}
        self.encoder(x)
        return self.features


def perceptual_loss(encoder, pred, target, layers=("1", "3")):
    extractor = FeatureExtractor(encoder, layers)
    with torch.no_grad():
        wanted = extractor.run(target)
    got = extractor.run(pred)
    return sum(F.mse_loss(got[n], wanted[n]) for n in layers)


def make_encoder():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
    )
    return net.eval().requires_grad_(False).to(device)


def make_autoencoder():
    return nn.Sequential(
        nn.Conv2d(3, 12, 4, stride=4), nn.GELU(), nn.ConvTranspose2d(12, 3, 4, stride=4), nn.Sigmoid()
    ).to(device)


def main():
    torch.manual_seed(0)
    encoder = make_encoder()
    model = make_autoencoder()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(36):
        images = torch.rand(8, 3, 40, 40, device=device)
        recon = model(images)
        loss = F.l1_loss(recon, images) + 0.1 * perceptual_loss(encoder, recon, images)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 9 == 0:
            print(f"step {step} loss {loss.item():.4f}")


main()
