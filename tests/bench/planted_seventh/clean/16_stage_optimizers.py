"""Progressive resizing where each stage replaces the optimiser and its schedule."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Net(nn.Module):
    def __init__(self, classes=8):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, classes))

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


class ProgressiveTrainer:
    def __init__(self, model, steps):
        self.model, self.steps = model, steps
        self.optimizer = self.scheduler = None
        self.log = []

    def new_stage(self, stage):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3 * 0.8**stage)
        self.scheduler = CosineAnnealingLR(self.optimizer, T_max=self.steps)

    def run(self, sizes):
        for stage, size in enumerate(sizes):
            self.new_stage(stage)
            for _ in range(self.steps):
                y = torch.randint(8, (8,), device=device)
                x = torch.rand(8, 3, size, size, device=device) + y[:, None, None, None] / 8
                loss = F.cross_entropy(self.model(x), y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
            self.log.append({"stage": stage, "size": size, "loss": loss.item()})
            print(self.log[-1])


torch.manual_seed(0)
ProgressiveTrainer(Net().to(device), steps=6).run([24, 24, 24, 24, 24, 24, 24, 24])
