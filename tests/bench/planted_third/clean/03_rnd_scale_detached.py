from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor, nn

torch.set_num_threads(1)
torch.manual_seed(103)


@dataclass
class Scale:
    mean: Optional[Tensor] = None
    momentum: float = 0.99

    @torch.no_grad()
    def update(self, err: Tensor) -> Tensor:
        m = err.mean(0)
        self.mean = m if self.mean is None else self.momentum * self.mean + (1 - self.momentum) * m
        return self.mean


def mlp(*sizes):
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.ELU()]
    return nn.Sequential(*layers[:-1])


policy, target, predictor = mlp(24, 64, 4), mlp(24, 96, 48), mlp(24, 96, 96, 48)
target.requires_grad_(False)
opt = torch.optim.Adam([*policy.parameters(), *predictor.parameters()], 3e-4)
scale = Scale()
obs = torch.randn(64, 24)
for t in range(150):
    dist = torch.distributions.Categorical(logits=policy(obs))
    act = dist.sample()
    nxt = 0.9 * obs + 0.1 * torch.randn_like(obs) + 0.01 * act[:, None]
    err = (predictor(nxt) - target(nxt)).pow(2)
    bonus = (err / (scale.update(err) + 1e-3)).mean(-1).detach()
    loss = err.mean() - (dist.log_prob(act) * (bonus - bonus.mean())).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    obs = nxt
    if t % 50 == 0:
        print(t, loss.item(), bonus.mean().item())
