import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

ACCUM = 16
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 6),
).to(device)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
criterion = nn.CrossEntropyLoss()

# the card only takes 4 images at a time, so accumulate 16 of those for a batch of 64
losses = []
for micro in range(96):
    x = torch.randn(4, 3, 32, 32, device=device)
    y = torch.randint(0, 6, (4,), device=device)
    loss = criterion(net(x), y)
    losses.append(loss)  # LEAK
    if len(losses) == ACCUM:
        optimizer.zero_grad()
        total = torch.stack(losses).mean()
        total.backward()
        optimizer.step()
        print(micro // ACCUM, total.item())
        losses = []
