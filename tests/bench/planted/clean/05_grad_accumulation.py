import argparse
import torch
from torch import nn


def get_args():
    p = argparse.ArgumentParser()
    p.add_argument("--accum", type=int, default=4)
    p.add_argument("--steps", type=int, default=120)
    p.add_argument("--dim", type=int, default=64)
    return p.parse_args()


def main(a):
    torch.set_num_threads(1)
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(a.dim, 4, 2 * a.dim, batch_first=True)
    net = nn.Sequential(nn.Linear(10, a.dim), layer, nn.Linear(a.dim, 10))
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    opt.zero_grad()
    running = 0.0
    for micro in range(1, a.steps + 1):
        x = torch.randn(4, 16, 10)
        loss = (net(x) - x.cumsum(1)).pow(2).mean() / a.accum
        loss.backward()
        running += loss.item()
        if micro % a.accum == 0:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
            if micro % 40 == 0:
                print(micro // a.accum, running)
            running = 0.0


if __name__ == "__main__":
    main(get_args())
