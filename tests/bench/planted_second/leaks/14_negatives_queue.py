from collections import deque

import torch
import torch.nn.functional as F
from torch import nn


def encoder():
    return nn.Sequential(nn.Linear(64, 192), nn.ReLU(), nn.Linear(192, 128))


def momentum_update(q, k, m=0.99):
    for pq, pk in zip(q.parameters(), k.parameters()):
        pk.data.mul_(m).add_(pq.data, alpha=1 - m)


class MoCo:
    def __init__(self, device, num_batches=16, t=0.1):
        self.q, self.k = encoder().to(device), encoder().to(device)
        self.k.load_state_dict(self.q.state_dict())
        for p in self.k.parameters():
            p.requires_grad_(False)
        self.queue = deque()
        self.num_batches = num_batches
        self.t = t

    def loss(self, x1, x2):
        q = F.normalize(self.q(x1), dim=1)
        with torch.no_grad():
            k = F.normalize(self.k(x2), dim=1)
        negatives = torch.cat(list(self.queue)[-self.num_batches :]) if self.queue else k.roll(1, 0)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ negatives.t()], dim=1) / self.t
        self.queue.append(k)  # LEAK
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def train(steps=130):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    moco = MoCo(device)
    opt = torch.optim.SGD(moco.q.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    for step in range(steps):
        x = torch.randn(64, 64, device=device)
        loss = moco.loss(x + 0.05 * torch.randn_like(x), x + 0.05 * torch.randn_like(x))
        opt.zero_grad()
        loss.backward()
        opt.step()
        momentum_update(moco.q, moco.k)
        if step % 40 == 0:
            print(f"{step:4d} {loss.item():.4f}")


train()
