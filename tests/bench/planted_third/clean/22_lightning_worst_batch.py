import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn


class Noise(torch.utils.data.IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        g = torch.Generator().manual_seed(22)
        for _ in range(self.n):
            yield torch.rand(1, 28, 28, generator=g)


class VAE(pl.LightningModule):
    def __init__(self, z=8):
        super().__init__()
        self.enc = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 2 * z))
        self.dec = nn.Sequential(nn.Linear(z, 64), nn.ReLU(), nn.Linear(64, 784))
        self.worst = (0.0, None)

    def training_step(self, x, idx):
        mu, logvar = self.enc(x).chunk(2, 1)
        rec = self.dec(mu + torch.randn_like(mu) * (0.5 * logvar).exp()).view_as(x)
        mse = F.mse_loss(rec, x)
        if mse.item() > self.worst[0]:
            self.worst = (mse.item(), rec.detach().clone())
        return mse + 5e-4 * (mu.pow(2) + logvar.exp() - 1 - logvar).mean()

    def on_train_epoch_end(self):
        print("epoch", self.current_epoch, "worst", round(self.worst[0], 4), tuple(self.worst[1].shape))
        self.worst = (0.0, None)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


pl.seed_everything(122, verbose=False)
torch.set_num_threads(1)
trainer = pl.Trainer(max_epochs=4, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                     enable_model_summary=False)
trainer.fit(VAE(), torch.utils.data.DataLoader(Noise(480), batch_size=12))
