import copy
import torch
import torch.nn as nn
import torch.nn.functional as F


class MoCo(nn.Module):
    def __init__(self, enc, dim=32, K=256, m=0.99):
        super().__init__()
        self.q, self.k = enc, copy.deepcopy(enc)
        for p in self.k.parameters():
            p.requires_grad = False
        self.m, self.K = m, K
        self.register_buffer("queue", F.normalize(torch.randn(dim, K), dim=0))
        self.register_buffer("ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys):
        p = int(self.ptr)
        self.queue[:, p:p + len(keys)] = keys.t()
        self.ptr[0] = (p + len(keys)) % self.K

    def forward(self, a, b):
        q = F.normalize(self.q(a), dim=1)
        with torch.no_grad():
            for x, y in zip(self.q.parameters(), self.k.parameters()):
                y.lerp_(x, 1 - self.m)
            k = F.normalize(self.k(b), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone()], 1) / 0.07
        self.enqueue(k)
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


torch.set_num_threads(1)
torch.manual_seed(26)
net = MoCo(nn.Sequential(nn.Flatten(), nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, 32)))
opt = torch.optim.SGD(net.q.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
for s in range(80):
    img = torch.rand(16, 3, 8, 8)
    loss = net(img, img.flip(-1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if s % 20 == 0:
        print(s, loss.item(), int(net.ptr))
