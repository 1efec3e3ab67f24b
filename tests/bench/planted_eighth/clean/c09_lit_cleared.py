import logging
import warnings
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
L.seed_everything(9, verbose=False)


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        self.hits = []

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.hits.append(self.net(x).argmax(1) == y)

    def on_validation_epoch_end(self):
        print(f"epoch {self.current_epoch} {torch.cat(self.hits).float().mean():.4f}")
        self.hits.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def loader(n):
    x = torch.randn(n, 64)
    return DataLoader(TensorDataset(x, x[:, :10].argmax(1)), batch_size=32)


if __name__ == "__main__":
    L.Trainer(max_epochs=6, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
              enable_model_summary=False).fit(Net(), loader(640), loader(256))
