"""Three architectures, small to large, one after the other in one process."""
import torch
from torch import nn

torch.manual_seed(11)


def mlp(width, depth):
    layers = [nn.Linear(64, width), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 8))


def experiment(width, depth, steps=30):
    net = mlp(width, depth)
    opt = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(steps):
        x = torch.randn(64, 64)
        loss = nn.functional.cross_entropy(net(x), x[:, :8].argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"width": width, "depth": depth, "loss": loss.item(), "params": sum(p.numel() for p in net.parameters())}


table = [experiment(w, d) for w, d in [(64, 1), (192, 2), (384, 3), (512, 4)]]
for row in table:
    print({k: round(v, 4) for k, v in row.items()})
