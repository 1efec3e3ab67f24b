import logging
import warnings

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Metric(pl.LightningModule):
    def __init__(self, dim=512):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(72, 128), nn.ReLU(), nn.Linear(128, dim))
        self.proxies = nn.Parameter(torch.randn(12, dim))
        self.training_step_outputs = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = F.normalize(self.net(x), dim=1)
        loss = F.cross_entropy(8 * z @ F.normalize(self.proxies, dim=1).T, y)
        self.training_step_outputs.append({"z": z.detach(), "y": y})
        return loss

    def on_train_epoch_end(self):
        z = torch.cat([o["z"] for o in self.training_step_outputs])[:500]
        self.log("uniformity", torch.pdist(z).pow(2).mul(-2).exp().mean().log())
        self.training_step_outputs.clear()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


if __name__ == "__main__":
    pl.seed_everything(41, verbose=False)
    torch.set_num_threads(1)
    y = torch.randint(12, (4480,))
    x = torch.randn(12, 72)[y] + torch.randn(4480, 72)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(Metric(), DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True))
    print(trainer.callback_metrics)
