"""Super-resolution with an own trainer that has hooks for steps and epochs."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SuperResolution(nn.Module):
    def __init__(self, ch=24, scale=2):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, ch, 5, padding=2), nn.ReLU(), nn.Conv2d(ch, 3 * scale**2, 3, padding=1))
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x):
        return self.shuffle(self.body(x))

    def training_step(self, batch):
        low, high = batch
        pred = self(low)
        loss = F.l1_loss(pred, high)
        return {"loss": loss, "pred": pred, "target": high}

    def training_epoch_end(self, outputs):
        mean = sum(o["loss"].item() for o in outputs) / len(outputs)
        print(f"mean loss {mean:.4f}")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Images:
    def __init__(self, batches, size=40, batch=8):
        self.batches, self.size, self.batch = batches, size, batch

    def __iter__(self):
        for _ in range(self.batches):
            high = torch.rand(self.batch, 3, self.size, self.size, device=device)
            yield F.avg_pool2d(high, 2), high


class Trainer:
    def __init__(self, max_epochs):
        self.max_epochs = max_epochs

    def fit(self, module, loader):
        opt = module.configure_optimizers()
        for epoch in range(self.max_epochs):
            outputs = []
            for batch in loader:
                out = module.training_step(batch)
                opt.zero_grad()
                out["loss"].backward()
                opt.step()
                outputs.append(out)
            print(f"epoch {epoch}:", end=" ")
            module.training_epoch_end(outputs)


if __name__ == "__main__":
    torch.manual_seed(0)
    Trainer(max_epochs=3).fit(SuperResolution().to(device), Images(batches=20))
