"""An image model: a ViT over made-up pictures from a DataLoader with workers and pinned memory, accuracy counted."""

import argparse

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import ViTConfig, ViTForImageClassification

SIZES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
             "image_size": 32, "patch_size": 8},
    "full": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}  # fmt: skip
parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=SIZES, default="tiny")
args = parser.parse_args()

torch.manual_seed(0)
torch.backends.cudnn.benchmark = True
device = torch.device("cuda")
config = ViTConfig(**SIZES[args.size], num_labels=10)


class Pictures(Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, config.image_size, config.image_size, generator=generator), index % 10


def loader(count):
    return DataLoader(Pictures(count), batch_size=8, shuffle=True, num_workers=2, pin_memory=True, drop_last=True)


model = ViTForImageClassification(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
scaler = torch.cuda.amp.GradScaler()
correct = seen = 0
for images, labels in loader(48):
    images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.amp.autocast():
        logits = model(pixel_values=images).logits
        loss = criterion(logits, labels)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    correct += (logits.argmax(dim=1) == labels).sum().item()
    seen += labels.size(0)
    print(f"loss {loss.item():.3f} accuracy {correct / seen:.3f}")

model.eval()
with torch.no_grad():
    for images, labels in loader(16):
        predictions = model(images.to(device)).logits.softmax(-1).topk(3).indices.cpu()
        print(predictions.shape, (predictions[:, 0] == labels).float().mean().item())
