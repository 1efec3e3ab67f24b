"""Semantic segmentation: training on crops, validation on whole images."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
CLASSES = 6


def conv_bn(cin, cout, stride=1):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


class SegNet(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.layers = nn.ModuleList([conv_bn(3, ch), conv_bn(ch, ch), conv_bn(ch, ch), conv_bn(ch, ch)])
        self.head = nn.Conv2d(ch, CLASSES, 1)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def scene(batch, size):
    mask = torch.randint(CLASSES, (batch, 1, size // 8, size // 8), device=device).float()
    mask = F.interpolate(mask, size=(size, size))[:, 0].long()
    image = torch.rand(batch, 3, size, size, device=device) + mask[:, None] / CLASSES
    return image, mask


def train_epoch(model, opt, steps):
    model.train()
    for _ in range(steps):
        image, mask = scene(4, 32)
        loss = F.cross_entropy(model(image), mask)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


def validate(model, images):
    model.eval()
    inter = torch.zeros(CLASSES, device=device)
    union = torch.zeros(CLASSES, device=device)
    for _ in range(images):
        image, mask = scene(1, 128)
        output = model(image)
        pred = output.argmax(dim=1)
        for c in range(CLASSES):
            inter[c] += ((pred == c) & (mask == c)).sum()
            union[c] += ((pred == c) | (mask == c)).sum()
    return (inter / union.clamp(min=1)).mean().item()


torch.manual_seed(0)
model = SegNet().to(device)
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for epoch in range(4):
    loss = train_epoch(model, opt, steps=8)
    print(f"epoch {epoch} loss {loss:.4f} mIoU {validate(model, images=2):.4f}")
