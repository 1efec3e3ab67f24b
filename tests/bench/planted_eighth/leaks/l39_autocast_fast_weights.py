"""Test-time adaptation: fast weights are made anew in every episode, all inside one autocast block."""
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(39)
slow = nn.Linear(256, 256)
decode = nn.Linear(256, 10)
opt = torch.optim.Adam(decode.parameters(), 1e-3)


def episode(x, y):
    w = slow.weight.detach().clone().requires_grad_()
    h = F.relu(F.linear(x, w))
    inner = h.float().pow(2).mean()
    (g,) = torch.autograd.grad(inner, w)
    h = F.relu(F.linear(x, w.detach() - 0.1 * g))
    loss = F.cross_entropy(decode(h).float(), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


with torch.autocast("cpu", dtype=torch.bfloat16):  # LEAK
    for e in range(70):
        x = torch.randn(32, 256)
        got = episode(x, x[:, :10].argmax(1))
        if e % 14 == 13:
            print(e + 1, f"{got:.3f}")
