import os
import tempfile

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Scans(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, i):
        return torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(i))


class Folder(BasePredictionWriter):
    def __init__(self, path):
        super().__init__(write_interval="batch")
        self.path = path

    def write_on_batch_end(self, trainer, module, prediction, batch_indices, batch, batch_idx, dataloader_idx):
        torch.save(prediction.argmax(1).byte(), os.path.join(self.path, f"{batch_idx:04d}.pt"))


class VolumeNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 2, 1))

    def predict_step(self, batch, batch_idx):
        return self.net(batch)


def main():
    L.seed_everything(116, verbose=False)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        trainer = L.Trainer(devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                            enable_model_summary=False, callbacks=[Folder(out)])
        trainer.predict(VolumeNet(), DataLoader(Scans(), batch_size=2), return_predictions=False)
        print(len(os.listdir(out)), "files")


if __name__ == "__main__":
    main()
