from collections import deque
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
enc = nn.Sequential(nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 64))
opt = torch.optim.SGD(enc.parameters(), lr=0.05)
recent = deque(maxlen=8)

for step in range(90):
    x = torch.randn(32, 40)
    a = nn.functional.normalize(enc(x), dim=1)
    b = nn.functional.normalize(enc(x + 0.1 * torch.randn_like(x)), dim=1)
    if recent:
        negatives = torch.cat(list(recent))
        logits = torch.cat([(a * b).sum(1, keepdim=True), a @ negatives.t()], 1) / 0.2
    else:
        logits = a @ b.t() / 0.2
    target = torch.zeros(32, dtype=torch.long) if recent else torch.arange(32)
    loss = nn.functional.cross_entropy(logits, target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    recent.append(b.detach())
    if step % 30 == 0:
        print(step, len(recent), loss.item())
