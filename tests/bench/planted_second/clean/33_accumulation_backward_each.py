import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ACCUM = 8

net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
).to(device)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
criterion = nn.CrossEntropyLoss()
window = []
for micro in range(120):
    x = torch.randn(4, 3, 24, 24, device=device)
    y = torch.randint(0, 5, (4,), device=device)
    loss = criterion(net(x), y) / ACCUM
    loss.backward()
    window.append(loss.detach())
    if (micro + 1) % ACCUM == 0:
        optimizer.step()
        optimizer.zero_grad()
        print(micro // ACCUM, torch.stack(window).sum().item())
        window.clear()
