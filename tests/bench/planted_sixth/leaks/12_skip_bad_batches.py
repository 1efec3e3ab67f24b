import random

import torch
import torch.nn.functional as F
from torch import nn

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class BadBatchError(RuntimeError):
    pass


class UNetSmall(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.down = nn.Conv2d(1, ch, 3, stride=2, padding=1)
        self.mid = nn.Conv2d(ch, ch, 3, padding=1)
        self.up = nn.ConvTranspose2d(ch, ch, 4, stride=2, padding=1)
        self.out = nn.Conv2d(ch + 1, 1, 1)

    def forward(self, x):
        h = torch.relu(self.mid(torch.relu(self.down(x))))
        return self.out(torch.cat([self.up(h), x], dim=1))


def load_batch(step):
    image = torch.rand(6, 1, 64, 64, device=device)
    mask = (image > 0.6).float()
    if step % 5 == 2:
        image[random.randrange(6), 0, 3, 3] = float("nan")
    return image, mask


class Trainer:
    def __init__(self):
        self.model = UNetSmall().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.failures = []

    def train_step(self, image, mask):
        logits = self.model(image)
        loss = F.binary_cross_entropy_with_logits(logits, mask)
        if not torch.isfinite(loss):
            raise BadBatchError("loss is not finite")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, steps):
        for step in range(steps):
            image, mask = load_batch(step)
            try:
                loss = self.train_step(image, mask)
            except BadBatchError as err:
                self.failures.append((step, err))
                continue
            if step % 20 == 0:
                print(f"step {step} loss {loss:.4f}")
        print("skipped:", [f"{step}: {err}" for step, err in self.failures][:3], "...", len(self.failures))


if __name__ == "__main__":
    Trainer().fit(90)
