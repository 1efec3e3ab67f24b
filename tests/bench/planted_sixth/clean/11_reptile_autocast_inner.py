import copy

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class MetaLearner:
    def __init__(self, inner_lr=0.05, meta_lr=0.3):
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 5)
        ).to(device)
        self.inner_lr, self.meta_lr = inner_lr, meta_lr

    def adapt(self, x, y, steps):
        learner = copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(learner.parameters(), lr=self.inner_lr)
        for _ in range(steps):
            with torch.autocast(device_type=device, dtype=torch.bfloat16):
                loss = F.cross_entropy(learner(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return learner, loss.item()

    @torch.no_grad()
    def meta_update(self, learner):
        for p, q in zip(self.model.parameters(), learner.parameters()):
            p.add_(q - p, alpha=self.meta_lr)


def episode(shots=8):
    centers = torch.randn(5, 1, 16, 16, device=device)
    labels = torch.arange(5, device=device).repeat_interleave(shots)
    return centers[labels] + 0.3 * torch.randn(len(labels), 1, 16, 16, device=device), labels


meta = MetaLearner()
for it in range(50):
    learner, loss = meta.adapt(*episode(), steps=3)
    meta.meta_update(learner)
    if it % 10 == 0:
        print(f"episode {it} loss {loss:.4f}")
