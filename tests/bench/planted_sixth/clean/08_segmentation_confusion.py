import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
CLASSES = 6


class ConfusionMatrix:
    def __init__(self):
        self.mat = None

    def update(self, target, pred):
        if self.mat is None:
            self.mat = torch.zeros(CLASSES, CLASSES, dtype=torch.long, device=target.device)
        idx = CLASSES * target.flatten() + pred.flatten()
        self.mat += torch.bincount(idx, minlength=CLASSES**2).view(CLASSES, CLASSES)

    def compute(self):
        h = self.mat.float()
        return (h.diag() / (h.sum(0) + h.sum(1) - h.diag()).clamp(min=1)).mean().item()


class CatMetric:
    def __init__(self):
        self.scores = []

    def update(self, values):
        self.scores.append(values)

    def compute(self):
        return torch.cat(self.scores).quantile(0.05).item()

    def reset(self):
        self.scores.clear()


model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, CLASSES, 3, padding=1)
).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
confusion, confidence = ConfusionMatrix(), CatMetric()


def tiles(n, batch):
    for _ in range(n):
        image = torch.rand(batch, 3, 64, 64, device=device)
        yield image, (image[:, 0] * CLASSES).long().clamp(max=CLASSES - 1)


@torch.no_grad()
def evaluate():
    model.eval()
    for image, target in tiles(5, 6):
        probs = model(image).softmax(1)
        confusion.update(target, probs.argmax(1))
        confidence.update(probs.amax(1).flatten())
    result = confusion.compute(), confidence.compute()
    confidence.reset()
    return result


for epoch in range(8):
    model.train()
    for image, target in tiles(10, 4):
        loss = F.cross_entropy(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    miou, q05 = evaluate()
    print(f"epoch {epoch} loss {loss.item():.4f} mIoU {miou:.3f} q05 {q05:.3f}")
