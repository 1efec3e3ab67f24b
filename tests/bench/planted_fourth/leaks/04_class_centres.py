from argparse import Namespace

import torch
from torch import nn

args = Namespace(classes=10, feat=64, momentum=0.9, steps=64, batch=128)
torch.manual_seed(21)
torch.set_num_threads(1)

backbone = nn.Sequential(nn.Linear(100, 192), nn.GELU(), nn.LayerNorm(192), nn.Linear(192, args.feat))
head = nn.Linear(args.feat, args.classes)
optim = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-3)
centres = {c: torch.zeros(args.feat) for c in range(args.classes)}


def centre_loss(feats, labels):
    table = torch.stack([centres[c] for c in range(args.classes)]).detach()
    return (feats - table[labels]).pow(2).sum(1).mean()


def move_centres(labels, inputs):
    feats = backbone(inputs)
    for c in labels.unique().tolist():
        mean = feats[labels == c].mean(0)
        centres[c] = args.momentum * centres[c] + (1 - args.momentum) * mean


prototypes = torch.randn(args.classes, 100)
for step in range(args.steps):
    y = torch.randint(args.classes, (args.batch,))
    x = prototypes[y] + torch.randn(args.batch, 100)
    f = backbone(x)
    loss = nn.functional.cross_entropy(head(f), y) + 0.003 * centre_loss(f, y)
    optim.zero_grad(set_to_none=True)
    loss.backward()
    optim.step()
    move_centres(y, x)
    if step % 16 == 15:
        spread = torch.stack(list(centres.values())).std(0).mean()
        print(f"{step + 1:4d} loss {loss.item():.3f} spread {spread.item():.4f}")
