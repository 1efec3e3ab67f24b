import logging
import warnings

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class ProxyNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(72, 128), nn.ReLU(), nn.Linear(128, 64))
        self.proxies = nn.Parameter(torch.randn(12, 64))
        self.losses, self.curve = [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(8 * F.normalize(self.net(x), dim=1) @ F.normalize(self.proxies, dim=1).T, y)
        self.losses.append(loss.item())
        return loss

    def on_train_epoch_end(self):
        self.curve.append(sum(self.losses) / len(self.losses))
        self.losses.clear()

    def configure_optimizers(self):
        opt = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return {"optimizer": opt, "lr_scheduler": torch.optim.lr_scheduler.StepLR(opt, 2)}


L.seed_everything(124, verbose=False)
torch.set_num_threads(1)
y = torch.randint(12, (1280,))
x = torch.randn(12, 72)[y] + torch.randn(1280, 72)
net = ProxyNet()
trainer = L.Trainer(
    max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(net, DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True))
print(net.curve)
