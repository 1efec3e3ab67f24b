import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Metric:
    def __init__(self):
        self._defaults = {}

    def add_state(self, name, default):
        self._defaults[name] = default
        setattr(self, name, list(default))

    def reset(self):
        for name, default in self._defaults.items():
            setattr(self, name, list(default))


class AveragePrecision(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("preds", [])
        self.add_state("target", [])

    def update(self, preds, target):
        self.preds.append(preds.flatten())
        self.target.append(target.flatten())

    def compute(self):
        preds, target = torch.cat(self.preds), torch.cat(self.target)
        hits = target[preds.argsort(descending=True)].float()
        precision = hits.cumsum(0) / torch.arange(1, hits.numel() + 1, device=hits.device)
        return (precision * hits).sum() / hits.sum().clamp(min=1)


class SegmentationModule(nn.Module):
    def __init__(self, ch=12):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(4, ch, 3, padding=1), nn.BatchNorm2d(ch), nn.ReLU(), nn.Conv2d(ch, 1, 3, padding=1)
        )
        self.val_ap = AveragePrecision()

    def training_step(self, image, mask):
        return F.binary_cross_entropy_with_logits(self.net(image), mask)

    @torch.no_grad()
    def validation_step(self, image, mask):
        self.val_ap.update(self.net(image).sigmoid(), mask > 0.5)

    def on_validation_epoch_end(self):
        return self.val_ap.compute().item()


def tiles(n, batch=4, size=64):
    for _ in range(n):
        image = torch.rand(batch, 4, size, size, device=device)
        yield image, (image.mean(1, keepdim=True) > 0.55).float()


def fit(module, epochs):
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for epoch in range(epochs):
        module.train()
        for image, mask in tiles(8):
            loss = module.training_step(image, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        module.eval()
        for image, mask in tiles(4):
            module.validation_step(image, mask)
        print(f"epoch {epoch} loss {loss.item():.4f} AP {module.on_validation_epoch_end():.4f}")


if __name__ == "__main__":
    fit(SegmentationModule().to(device), epochs=10)
