import copy

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def build_model():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16 * 16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 5)
    ).to(device)


def sample_task(shots=8):
    centers = torch.randn(5, 1, 16, 16, device=device)
    labels = torch.arange(5, device=device).repeat_interleave(shots)
    return centers[labels] + 0.3 * torch.randn(len(labels), 1, 16, 16, device=device), labels


class Reptile:
    def __init__(self, inner_lr=0.05, inner_steps=3, meta_lr=0.3):
        self.model = build_model()
        self.inner_lr, self.inner_steps, self.meta_lr = inner_lr, inner_steps, meta_lr

    def adapt(self, x, y):
        learner = copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(learner.parameters(), lr=self.inner_lr)
        for _ in range(self.inner_steps):
            loss = F.cross_entropy(learner(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return learner, loss.item()

    @torch.no_grad()
    def meta_update(self, learner):
        for p, q in zip(self.model.parameters(), learner.parameters()):
            p.add_(q - p, alpha=self.meta_lr)

    def fit(self, iterations):
        with torch.autocast(device_type=device, dtype=torch.bfloat16):
            for it in range(iterations):
                x, y = sample_task()
                learner, loss = self.adapt(x, y)
                self.meta_update(learner)
                if it % 10 == 0:
                    print(f"iteration {it} task loss {loss:.4f}")


if __name__ == "__main__":
    Reptile().fit(60)
