"""Progressive resizing: every stage has its own image size, optimiser and learning-rate schedule."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Net(nn.Module):
    def __init__(self, classes=8):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )
        self.head = nn.Sequential(nn.Linear(256, 384), nn.ReLU(), nn.Linear(384, classes))

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


class ProgressiveTrainer:
    def __init__(self, model, sizes, steps_per_stage):
        self.model = model
        self.sizes = sizes
        self.steps = steps_per_stage
        self.schedulers = []

    def start_stage(self, stage):
        lr = 3e-3 * 0.8**stage
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.schedulers.append(OneCycleLR(self.optimizer, lr, total_steps=self.steps + 1))

    def data(self, size, batch=8):
        y = torch.randint(8, (batch,), device=device)
        x = torch.rand(batch, 3, size, size, device=device) + y[:, None, None, None] / 8
        return x, y

    def fit(self):
        for stage, size in enumerate(self.sizes):
            self.start_stage(stage)
            running = 0.0
            for _ in range(self.steps):
                x, y = self.data(size)
                loss = F.cross_entropy(self.model(x), y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.schedulers[-1].step()
                running += loss.item()
            lr = self.schedulers[-1].get_last_lr()[0]
            print(f"stage {stage} size {size} loss {running / self.steps:.4f} lr {lr:.5f}")


torch.manual_seed(0)
net = Net().to(device)
ProgressiveTrainer(net, sizes=[16, 16, 20, 20, 24, 24, 28, 28, 32, 32], steps_per_stage=5).fit()
