"""A LightningModule with validation, mixed precision, gradient clipping and accumulation, trained by Lightning."""

import argparse

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=["tiny", "full"], default="tiny")
parser.add_argument("--precision", default="bf16-mixed")
args = parser.parse_args()
width, depth, rows = (64, 2, 16) if args.size == "tiny" else (4096, 12, 512)


class Regressor(L.LightningModule):
    def __init__(self, width, depth):
        super().__init__()
        self.save_hyperparameters()
        layers = []
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(0.1)]
        self.net = nn.Sequential(*layers, nn.Linear(width, 10))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(-1) == y).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


L.seed_everything(0)


def loader(count):
    data = TensorDataset(torch.randn(count * rows, width), torch.randint(10, (count * rows,)))
    return DataLoader(data, batch_size=rows, num_workers=2, pin_memory=True)


trainer = L.Trainer(
    max_epochs=1,
    accelerator="gpu",
    devices=1,
    precision=args.precision,
    gradient_clip_val=1.0,
    accumulate_grad_batches=2,
    log_every_n_steps=1,
    enable_progress_bar=False,
)
trainer.fit(Regressor(width, depth), loader(12), loader(2))
print({name: float(value) for name, value in trainer.callback_metrics.items()})
