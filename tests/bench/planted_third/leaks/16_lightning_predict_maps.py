import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Scans(Dataset):
    """Synthetic volumes, made when asked for."""

    def __len__(self):
        return 96

    def __getitem__(self, i):
        return torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(i))


class VolumeNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(1, 8, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv3d(8, 2, 1)

    def forward(self, x):
        feats = self.body(self.stem(x))
        return self.head(feats), feats

    def predict_step(self, batch, batch_idx):
        seg, feats = self(batch)
        if batch_idx % 10 == 0:
            print(batch_idx, "foreground", round((seg.argmax(1) == 1).float().mean().item(), 3))
        return {"seg": seg, "features": feats}


def main():
    L.seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    trainer = L.Trainer(devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False)
    trainer.predict(VolumeNet(), DataLoader(Scans(), batch_size=2))


if __name__ == "__main__":
    main()
