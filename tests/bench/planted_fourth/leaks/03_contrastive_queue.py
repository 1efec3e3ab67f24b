import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(12)
torch.set_num_threads(1)
DIM, K, B = 64, 1024, 96


def encoder():
    return nn.Sequential(nn.Linear(200, 256), nn.ReLU(), nn.Linear(256, DIM))


class Contrast(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_enc, self.k_enc = encoder(), encoder()
        self.k_enc.load_state_dict(self.q_enc.state_dict())
        self.queue = F.normalize(torch.randn(K, DIM), dim=1)

    @torch.no_grad()
    def momentum(self, m=0.99):
        for p, k in zip(self.q_enc.parameters(), self.k_enc.parameters()):
            k.mul_(m).add_(p, alpha=1 - m)

    def forward(self, a, b):
        q = F.normalize(self.q_enc(a), dim=1)
        k = F.normalize(self.k_enc(b), dim=1)
        neg = self.queue.clone().detach()
        logits = torch.cat([(q * k.detach()).sum(1, keepdim=True), q @ neg.T], 1) / 0.2
        self.enqueue(k)
        return F.cross_entropy(logits, torch.zeros(len(a), dtype=torch.long))

    def enqueue(self, keys):
        self.queue = torch.cat([keys, self.queue])[:K]


def views(n):
    base = torch.randn(n, 200)
    return base + 0.2 * torch.randn(n, 200), base + 0.2 * torch.randn(n, 200)


def main():
    net = Contrast()
    opt = torch.optim.SGD(net.q_enc.parameters(), lr=0.05, momentum=0.9)
    for step in range(60):
        loss = net(*views(B))
        opt.zero_grad()
        loss.backward()
        opt.step()
        net.momentum()
        if step % 20 == 0:
            print(step, loss.item())


main()
