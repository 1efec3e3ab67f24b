import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class FeatureExtractor:
    def __init__(self, encoder, layers):
        self.encoder = encoder
        self.features = {name: [] for name in layers}
        for name, module in encoder.named_children():
            if name in layers:
                module.register_forward_hook(self._make_hook(name))

    def _make_hook(self, name):
        def hook(module, inputs, output):
            self.features[name].append(output)

        return hook

    def run(self, x):
        self.encoder(x)
        return {name: feats[-1] for name, feats in self.features.items()}


def build_encoder():
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
    )
    return encoder.to(device).eval().requires_grad_(False)


def gram(x):
    b, c, h, w = x.shape
    flat = x.reshape(b, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


def perceptual_loss(encoder, output, target):
    extractor = FeatureExtractor(encoder, layers=["1", "4"])
    out_feats = extractor.run(output)
    with torch.no_grad():
        ref_feats = extractor.run(target)
    content = F.mse_loss(out_feats["4"], ref_feats["4"])
    style = sum(F.mse_loss(gram(out_feats[k]), gram(ref_feats[k])) for k in out_feats)
    return content + 10.0 * style


class TransformNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.InstanceNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 5, padding=2)
        )

    def forward(self, x):
        return torch.sigmoid(self.net(x))


def main():
    encoder = build_encoder()
    net = TransformNet().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(40):
        content = torch.rand(2, 3, 48, 48, device=device)
        loss = perceptual_loss(encoder, net(content), content.flip(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"iter {step:3d} loss {loss.item():.5f}")


if __name__ == "__main__":
    main()
