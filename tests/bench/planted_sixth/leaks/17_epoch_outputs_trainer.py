from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Task(nn.Module, ABC):
    @abstractmethod
    def training_step(self, batch): ...

    def training_epoch_end(self, outputs):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class DepthTask(Task):
    def __init__(self, ch=16):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, ch, 3, padding=1), nn.ReLU(), nn.Conv2d(ch, ch, 3, padding=1), nn.ReLU(), nn.Conv2d(ch, 1, 1)
        )

    def training_step(self, batch):
        image, depth = batch
        pred = F.softplus(self.net(image))
        loss = F.l1_loss(pred, depth)
        return {"loss": loss, "pred": pred.detach(), "depth": depth}

    def training_epoch_end(self, outputs):
        abs_rel = [((o["pred"] - o["depth"]).abs() / (o["depth"] + 1e-3)).mean() for o in outputs]
        print(f"abs_rel {torch.stack(abs_rel).mean().item():.4f}")


class Loop:
    def __init__(self, task, max_epochs):
        self.task = task.to(device)
        self.max_epochs = max_epochs

    def run_epoch(self, loader, optimizer):
        outputs = []
        for batch in loader:
            out = self.task.training_step(batch)
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
            outputs.append(out)
        self.task.training_epoch_end(outputs)

    def fit(self, make_loader):
        optimizer = self.task.configure_optimizers()
        for _ in range(self.max_epochs):
            self.run_epoch(make_loader(), optimizer)


def depth_batches(n=24, batch=4, size=72):
    for _ in range(n):
        image = torch.rand(batch, 3, size, size, device=device)
        yield image, image.mean(1, keepdim=True) * 5


if __name__ == "__main__":
    Loop(DepthTask(), max_epochs=4).fit(depth_batches)
