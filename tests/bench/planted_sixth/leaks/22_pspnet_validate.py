import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
CLASSES = 5


class PyramidHead(nn.Module):
    def __init__(self, ch, bins=(1, 2, 4)):
        super().__init__()
        self.stages = nn.ModuleList(
            [nn.Sequential(nn.AdaptiveAvgPool2d(b), nn.Conv2d(ch, ch // 4, 1), nn.ReLU()) for b in bins]
        )
        self.fuse = nn.Conv2d(ch + len(bins) * (ch // 4), CLASSES, 1)

    def forward(self, x):
        size = x.shape[-2:]
        pyramid = [F.interpolate(s(x), size=size, mode="bilinear", align_corners=False) for s in self.stages]
        return self.fuse(torch.cat([x, *pyramid], dim=1))


class PSPNet(nn.Module):
    def __init__(self, ch=24, depth=5):
        super().__init__()
        layers = [nn.Conv2d(3, ch, 3, stride=2, padding=1)]
        for _ in range(depth):
            layers += [nn.BatchNorm2d(ch), nn.ReLU(), nn.Conv2d(ch, ch, 3, padding=1)]
        self.backbone = nn.Sequential(*layers)
        self.head = PyramidHead(ch)

    def forward(self, x):
        logits = self.head(self.backbone(x))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


class AverageMeter:
    def __init__(self):
        self.sum = self.count = 0

    def update(self, value, n):
        self.sum += value * n
        self.count += n


def loader(n, batch, size):
    for _ in range(n):
        image = torch.rand(batch, 3, size, size, device=device)
        yield image, (image.mean(1) * CLASSES).long().clamp(max=CLASSES - 1)


def train(model, optimizer):
    model.train()
    meter = AverageMeter()
    for image, target in loader(12, batch=2, size=64):
        loss = F.cross_entropy(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.update(loss.item(), image.size(0))
    return meter.sum / meter.count


def validate(model):
    model.eval()
    inter, loss_meter = AverageMeter(), AverageMeter()
    for image, target in loader(3, batch=4, size=112):
        output = model(image)
        loss = F.cross_entropy(output, target)
        inter.update((output.argmax(1) == target).float().mean().item(), image.size(0))
        loss_meter.update(loss.item(), image.size(0))
    return loss_meter.sum / loss_meter.count, inter.sum / inter.count


model = PSPNet().to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for epoch in range(3):
    train_loss = train(model, optimizer)
    val_loss, acc = validate(model)
    print(f"epoch {epoch} train {train_loss:.4f} val {val_loss:.4f} acc {acc:.3f}")
