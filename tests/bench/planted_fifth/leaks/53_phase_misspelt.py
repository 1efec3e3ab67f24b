import torch
from torch import nn

torch.manual_seed(53)
torch.set_num_threads(1)


def make_net(width=24):
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 6))


def images(n):
    y = torch.randint(6, (n,))
    return torch.randn(n, 3, 20, 20) + y.view(-1, 1, 1, 1) / 3, y


def loaders():
    return {"train": [images(4) for _ in range(15)], "valid": [images(24) for _ in range(3)]}


def run_phase(net, opt, phase, batches):
    net.train(phase == "train")
    total = 0.0
    for x, y in batches:
        opt.zero_grad()
        with torch.set_grad_enabled(phase != "val"):
            loss = nn.functional.cross_entropy(net(x), y)
        if phase == "train":
            loss.backward()
            opt.step()
        total += loss.item()
    return total / len(batches)


net = make_net()
opt = torch.optim.AdamW(net.parameters(), 1e-3)
data = loaders()
for epoch in range(4):
    print(epoch, {phase: round(run_phase(net, opt, phase, batches), 3) for phase, batches in data.items()})
