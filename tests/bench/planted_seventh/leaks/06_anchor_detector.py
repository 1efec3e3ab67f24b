"""One-stage detector on synthetic boxes, with an average precision of its objectness."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class AveragePrecision(nn.Module):
    """Area under the precision-recall curve over everything seen."""

    def __init__(self):
        super().__init__()
        self.scores = []
        self.labels = []

    def reset(self):
        self.scores.clear()
        self.labels.clear()

    def update(self, scores, labels):
        self.scores.append(scores.detach().flatten())
        self.labels.append(labels.flatten())

    def compute(self):
        scores, labels = torch.cat(self.scores), torch.cat(self.labels)
        order = scores.argsort(descending=True)
        hits = labels[order].cumsum(0)
        precision = hits / torch.arange(1, len(hits) + 1, device=hits.device)
        return (precision * labels[order]).sum() / labels.sum().clamp(min=1)


class Detector(nn.Module):
    def __init__(self, anchors=4):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU())
        self.obj = nn.Conv2d(32, anchors, 1)
        self.box = nn.Conv2d(32, anchors * 4, 1)

    def forward(self, x):
        f = self.backbone(x)
        return self.obj(f), self.box(f)


def batch(n=8, size=48, anchors=4):
    img = torch.rand(n, 3, size, size, device=device)
    obj = (torch.rand(n, anchors, size // 2, size // 2, device=device) < 0.05).float()
    return img, obj, torch.randn(n, anchors * 4, size // 2, size // 2, device=device)


def run_epoch(model, opt, metric, steps=8):
    total = 0.0
    for _ in range(steps):
        img, obj, box = batch()
        obj_logits, box_pred = model(img)
        mask = obj.repeat_interleave(4, dim=1)
        box_loss = (F.smooth_l1_loss(box_pred, box, reduction="none") * mask).sum() / mask.sum().clamp(min=1)
        loss = F.binary_cross_entropy_with_logits(obj_logits, obj) + box_loss
        opt.zero_grad()
        loss.backward()
        opt.step()
        metric.update(obj_logits.sigmoid(), obj)
        total += loss.item()
    return total / steps


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Detector().to(device)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    metric = AveragePrecision().to(device)
    for epoch in range(7):
        loss = run_epoch(model, opt, metric)
        print(f"epoch {epoch} loss {loss:.4f} AP {metric.compute().item():.4f}")
