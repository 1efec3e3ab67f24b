import enum

import torch
from torch import nn

torch.manual_seed(147)
torch.set_num_threads(1)


class Phase(enum.Enum):
    TRAIN = "train"
    VALID = "valid"


def make_net(width=24):
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 6))


def images(n):
    y = torch.randint(6, (n,))
    return torch.randn(n, 3, 20, 20) + y.view(-1, 1, 1, 1) / 3, y


net = make_net()
opt = torch.optim.AdamW(net.parameters(), 1e-3)
data = {Phase.TRAIN: [images(4) for _ in range(15)], Phase.VALID: [images(24) for _ in range(3)]}
for epoch in range(4):
    for phase, batches in data.items():
        net.train(phase is Phase.TRAIN)
        for x, y in batches:
            with torch.set_grad_enabled(phase is Phase.TRAIN):
                loss = nn.functional.cross_entropy(net(x), y)
            if phase is Phase.TRAIN:
                opt.zero_grad()
                loss.backward()
                opt.step()
    print(epoch, loss.item())
