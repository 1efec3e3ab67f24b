from dataclasses import dataclass

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)


@dataclass
class RunningScale:
    mean: torch.Tensor = None
    momentum: float = 0.99

    def __call__(self, err):
        batch = err.mean(0)
        if self.mean is None:
            self.mean = batch
        else:
            self.mean = self.momentum * self.mean + (1 - self.momentum) * batch
        return err / (self.mean.detach() + 1e-3)


class Curiosity(nn.Module):
    """RND: a fixed target, a learned predictor."""

    def __init__(self, obs=24, feat=48):
        super().__init__()
        self.target = nn.Sequential(nn.Linear(obs, 96), nn.ELU(), nn.Linear(96, feat)).requires_grad_(False)
        self.predictor = nn.Sequential(nn.Linear(obs, 96), nn.ELU(), nn.Linear(96, 96), nn.ELU(), nn.Linear(96, feat))
        self.scale = RunningScale()

    def bonus(self, obs):
        err = (self.predictor(obs) - self.target(obs)).pow(2)
        return self.scale(err).mean(-1).detach(), err


policy = nn.Sequential(nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, 4))
rnd = Curiosity()
opt = torch.optim.Adam([*policy.parameters(), *rnd.predictor.parameters()], lr=3e-4)
obs = torch.randn(64, 24)
for t in range(150):
    dist = torch.distributions.Categorical(logits=policy(obs))
    act = dist.sample()
    nxt = 0.9 * obs + 0.1 * torch.randn_like(obs) + act.unsqueeze(1) * 0.01
    reward, _ = rnd.bonus(nxt)
    pg = -(dist.log_prob(act) * (reward - reward.mean())).mean()
    distil = (rnd.predictor(nxt) - rnd.target(nxt)).pow(2).mean()
    opt.zero_grad()
    (pg + distil).backward()
    opt.step()
    obs = nxt
    if t % 50 == 0:
        print(t, reward.mean().item())
