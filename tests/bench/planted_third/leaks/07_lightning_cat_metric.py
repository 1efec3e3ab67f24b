import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class ScoreMetric:
    def __init__(self):
        self.preds, self.target = [], []

    def update(self, preds, target):
        self.preds.append(preds)
        self.target.append(target)

    def compute(self):
        p, t = torch.cat(self.preds), torch.cat(self.target)
        return ((p > 0) == (t > 0)).float().mean()

    def reset(self):
        self.preds, self.target = [], []


class Segmenter(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
        self.score = ScoreMetric()

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.score.update(self.net(x), y)

    def on_validation_epoch_end(self):
        self.log("val_score", self.score.compute())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def loader(n):
    x = torch.randn(n, 1, 24, 24)
    return DataLoader(TensorDataset(x, x.repeat(1, 4, 1, 1)), batch_size=8)


if __name__ == "__main__":
    L.seed_everything(1, verbose=False)
    torch.set_num_threads(1)
    trainer = L.Trainer(
        max_epochs=10, accelerator="auto", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )
    trainer.fit(Segmenter(), loader(64), loader(48))
    print({k: float(v) for k, v in trainer.callback_metrics.items()})
