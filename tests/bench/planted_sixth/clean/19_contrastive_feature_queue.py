import copy

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class MoCo(nn.Module):
    def __init__(self, dim=64, size=1024, momentum=0.99, temperature=0.1):
        super().__init__()
        self.q = nn.Sequential(
            nn.Conv2d(3, 16, 5, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(32, dim),
        )  # fmt: skip
        self.k = copy.deepcopy(self.q).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(size, dim), dim=1))
        self.ptr, self.m, self.t = 0, momentum, temperature

    @torch.no_grad()
    def update_key_encoder(self):
        for k, q in zip(self.k.parameters(), self.q.parameters()):
            k.mul_(self.m).add_(q, alpha=1 - self.m)

    @torch.no_grad()
    def enqueue(self, keys):
        n = keys.size(0)
        self.queue[self.ptr : self.ptr + n] = keys
        self.ptr = (self.ptr + n) % self.queue.size(0)

    def forward(self, a, b):
        q = F.normalize(self.q(a), dim=1)
        with torch.no_grad():
            self.update_key_encoder()
            k = F.normalize(self.k(b), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone().t()], dim=1) / self.t
        self.enqueue(k)
        return F.cross_entropy(logits, torch.zeros(len(a), dtype=torch.long, device=a.device))


model = MoCo().to(device)
optimizer = torch.optim.SGD(model.q.parameters(), lr=0.03, momentum=0.9)
for step in range(90):
    image = torch.rand(16, 3, 32, 32, device=device)
    loss = model(image + 0.1 * torch.randn_like(image), image.flip(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
