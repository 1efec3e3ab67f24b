import logging
import warnings

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import SpearmanCorrCoef

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)


class Affinity(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(40, 64), nn.SiLU(), nn.Linear(64, 16))
        self.rank = SpearmanCorrCoef(num_outputs=16)

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.rank.update(self.net(x), y)

    def on_validation_epoch_end(self):
        value = self.rank.compute().mean()
        self.log("val_rank", value.item())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def split(n, batch):
    x = torch.randn(n, 40)
    y = torch.tanh(x[:, :16] + 0.3 * x[:, 16:32])
    return DataLoader(TensorDataset(x, y), batch_size=batch)


L.seed_everything(16, verbose=False)
trainer = L.Trainer(
    max_epochs=10, accelerator="cpu", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
)
trainer.fit(Affinity(), split(512, 64), split(3000, 300))
print(trainer.callback_metrics)
