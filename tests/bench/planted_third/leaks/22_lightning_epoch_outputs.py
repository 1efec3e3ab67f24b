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
        self.outputs = []

    def training_step(self, x, idx):
        mu, logvar = self.enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        rec = self.dec(z).view_as(x)
        kl = 0.5 * (mu.pow(2) + logvar.exp() - 1 - logvar).mean()
        loss = F.mse_loss(rec, x) + 1e-3 * kl
        self.outputs.append((x, rec.detach()))
        return loss

    def on_train_epoch_end(self):
        worst = max(((r - x).pow(2).mean().item(), i) for i, (x, r) in enumerate(self.outputs))
        print("epoch", self.current_epoch, "worst batch", worst)
        self.outputs.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


pl.seed_everything(2, verbose=False)
torch.set_num_threads(1)
trainer = pl.Trainer(max_epochs=4, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                     enable_model_summary=False)
trainer.fit(VAE(), torch.utils.data.DataLoader(Noise(480), batch_size=12))
