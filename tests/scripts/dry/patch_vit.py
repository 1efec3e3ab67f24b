"""An image model written by hand: patches by `unfold`, a linear embedding, PyTorch's own encoder, mixed precision."""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

SIZES = {
    "tiny": {"width": 64, "depth": 2, "heads": 4, "image": 32, "patch": 8, "batch": 4},
    "full": {"width": 1024, "depth": 24, "heads": 16, "image": 224, "patch": 16, "batch": 16},
}
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
size = SIZES[parser.parse_args().size]


class PatchViT(nn.Module):
    def __init__(self, width, depth, heads, image, patch, num_classes=100):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(3 * patch * patch, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        patches = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(images), -1, -1), self.embed(patches)], dim=1) + self.positions
        return self.head(self.norm(self.encoder(x))[:, 0])


batch = size.pop("batch")
model = PatchViT(**size).cuda()
decayed = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() <= 1]
optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}])
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
running = 0.0
for step in range(6):
    images = torch.rand(batch, 3, size["image"], size["image"], device="cuda")
    labels = torch.randint(100, (batch,), device="cuda")
    if step % 2:
        images = images.flip(-1)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    running += loss.item()
print(f"mean loss {running / 6:.3f}")

model.eval()
with torch.no_grad():
    images = torch.rand(2 * batch, 3, size["image"], size["image"], device="cuda")
    print(model(images).argmax(-1).tolist()[:4])
