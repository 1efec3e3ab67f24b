"""Instance discrimination: a bank of keys by sample id. New samples come all the time (a stream)."""
import itertools
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(27)
enc_q = nn.Sequential(nn.Linear(96, 256), nn.ReLU(), nn.Linear(256, 64))
enc_k = nn.Sequential(nn.Linear(96, 256), nn.ReLU(), nn.Linear(256, 64))
enc_k.load_state_dict(enc_q.state_dict())
opt = torch.optim.SGD(enc_q.parameters(), 0.05)
ids = itertools.count()


def remember(bank):
    """Returns a function that files keys under fresh ids and gives negatives."""
    def put(keys):
        for row in keys.unbind():
            bank[next(ids)] = row  # LEAK

    def negatives(k):
        recent = list(bank)[-k:]
        return torch.stack([bank[i].detach() for i in recent]) if recent else torch.zeros(1, 64)
    return put, negatives


put, negatives = remember({})
for it in range(70):
    x = torch.randn(48, 96)
    q = F.normalize(enc_q(x + 0.1 * torch.randn_like(x)), dim=-1)
    k = F.normalize(enc_k(x), dim=-1)
    neg = negatives(256)
    logits = torch.cat([(q * k.detach()).sum(-1, keepdim=True), q @ neg.T], 1) / 0.1
    loss = F.cross_entropy(logits, torch.zeros(48, dtype=torch.long))
    opt.zero_grad()
    loss.backward()
    opt.step()
    put(k)
    with torch.no_grad():
        for a, b in zip(enc_k.parameters(), enc_q.parameters()):
            a.mul_(0.99).add_(b, alpha=0.01)
    if it % 14 == 13:
        print(it + 1, f"{loss.item():.4f}")
