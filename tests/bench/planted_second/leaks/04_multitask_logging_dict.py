import argparse
from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import nn


class SharedTrunk(nn.Module):
    def __init__(self, d_in, width):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(d_in, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.cls = nn.Linear(width, 7)
        self.depth = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, x):
        h = self.trunk(x)
        return self.cls(h), self.depth(h).squeeze(-1)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--steps", type=int, default=100)
    ap.add_argument("--depth-from", type=int, default=10_000, help="step from which the depth task is trained too")
    ap.add_argument("--width", type=int, default=192)
    args = ap.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SharedTrunk(48, args.width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    log = defaultdict(list)

    for step in range(args.steps):
        x = torch.randn(64, 48, device=device)
        y = torch.randint(0, 7, (64,), device=device)
        d = x.norm(dim=1)
        logits, depth = model(x)
        losses = {"cls": F.cross_entropy(logits, y), "depth": F.smooth_l1_loss(depth, d)}
        total = losses["cls"]
        if step >= args.depth_from:
            total = total + 0.3 * losses["depth"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        for name, value in losses.items():
            log[name].append(value)  # LEAK
        if (step + 1) % 25 == 0:
            print(step + 1, {k: round(float(sum(v[-25:])) / 25, 4) for k, v in log.items()})


if __name__ == "__main__":
    main()
