import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F


class DeepConv(nn.Module):
    def __init__(self, depth=10, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.out = nn.Conv2d(width, 6, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for b in self.blocks:
            x = F.relu(b(x)) + x
        return self.out(x)


def validate(net, batches):
    net.eval()
    correct = count = 0
    for img, lab in batches:
        pred = net(img)  # LEAK
        correct += (pred.argmax(1) == lab).sum().item()
        count += lab.numel()
    net.train()
    return correct / count


def batch(n, size):
    img = torch.rand(n, 3, size, size)
    return img, (img.mean(1) * 6).long().clamp(max=5)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--steps", type=int, default=36)
    p.add_argument("--val-batch", type=int, default=10)
    a = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = DeepConv()
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    val = [batch(a.val_batch, 32) for _ in range(2)]
    for s in range(a.steps):
        x, y = batch(2, 32)
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if s % 12 == 11:
            print(s, loss.item(), validate(net, val))


main()
