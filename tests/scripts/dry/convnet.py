"""A small residual network of torch.nn alone on made-up pictures, channels last, SGD, batch norm."""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=["tiny", "full"], default="tiny")
parser.add_argument("--channels-last", action="store_true")
args = parser.parse_args()
width, blocks, side, rows = (16, 2, 32, 8) if args.size == "tiny" else (256, 8, 112, 64)

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return torch.relu(x + self.body(x))


model = nn.Sequential(
    nn.Conv2d(3, width, 7, stride=2, padding=3),
    nn.BatchNorm2d(width),
    nn.ReLU(inplace=True),
    nn.MaxPool2d(3, 2, 1),
    *[Block(width) for _ in range(blocks)],
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Dropout(0.2),
    nn.Linear(width, 10),
).to(device)
if args.channels_last:
    model = model.to(memory_format=torch.channels_last)
print(sum(p.numel() for p in model.parameters()), "parameters")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=6)
criterion = nn.CrossEntropyLoss()
model.train()
for step in range(6):
    x, y = torch.randn(rows, 3, side, side, device=device), torch.randint(0, 10, (rows,), device=device)
    if args.channels_last:
        x = x.to(memory_format=torch.channels_last)
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
    scheduler.step()
    print(step, loss.item())
