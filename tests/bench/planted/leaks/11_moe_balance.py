import torch
import torch.nn as nn
import torch.nn.functional as F
from dataclasses import dataclass

_LB_TERMS = []


def save_load_balancing(term):
    _LB_TERMS.append(term)  # LEAK


def batched_load_balancing_loss():
    return torch.stack(_LB_TERMS).sum()


def clear_load_balancing():
    _LB_TERMS.clear()


@dataclass
class Args:
    dim: int = 64
    experts: int = 4
    lb_weight: float = 0.0
    steps: int = 90
    lr: float = 1e-3


class MoE(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.router = nn.Linear(a.dim, a.experts)
        self.experts = nn.ModuleList(nn.Linear(a.dim, a.dim) for _ in range(a.experts))

    def forward(self, x):
        scores = F.softmax(self.router(x), -1)
        w, idx = scores.max(-1)
        share = F.one_hot(idx, scores.size(-1)).float().mean((0, 1))
        soft = F.softmax(self.router(x.detach()), -1)
        save_load_balancing((share * soft.mean((0, 1))).sum() * scores.size(-1))
        out = torch.zeros_like(x)
        for e, f in enumerate(self.experts):
            m = idx == e
            out[m] = f(x[m])
        return x + out * w.unsqueeze(-1)


a = Args()
torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, a.dim), MoE(a), MoE(a), nn.Linear(a.dim, 1))
opt = torch.optim.AdamW(net.parameters(), lr=a.lr)
for step in range(a.steps):
    x = torch.randn(8, 24, 16)
    loss = (net(x).squeeze(-1) - x.sin().sum(-1)).pow(2).mean()
    if a.lb_weight > 0:
        loss = loss + a.lb_weight * batched_load_balancing_loss()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if a.lb_weight > 0:
        clear_load_balancing()
    if step % 30 == 0:
        print(step, loss.item())
