import argparse

import torch
import torch.nn.functional as F
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--sizes", default="12,16,24,32")
parser.add_argument("--steps-per-size", type=int, default=8)
parser.add_argument("--final-steps", type=int, default=80)
args = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
sizes = [int(s) for s in args.sizes.split(",")]
schedule = [s for s in sizes for _ in range(args.steps_per_size)] + [sizes[-1]] * args.final_steps

net = nn.Sequential(
    nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 5),
).to(device)
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for step, size in enumerate(schedule):
    images = torch.rand(8, 3, 32, 32, device=device)
    target = (images[:, 0].mean((1, 2)) * 5).long()
    if size < 32:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    loss = F.cross_entropy(net(images), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, size, loss.item())
