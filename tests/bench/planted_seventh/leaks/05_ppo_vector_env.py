"""PPO with vectorised environments and an own rollout store."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Policy(nn.Module):
    def __init__(self, obs_dim=24, n_actions=4):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh())
        self.pi = nn.Linear(64, n_actions)
        self.v = nn.Linear(64, 1)

    def forward(self, obs):
        h = self.body(obs)
        return Categorical(logits=self.pi(h)), self.v(h).squeeze(-1)


@dataclass
class Rollout:
    obs: torch.Tensor
    actions: torch.Tensor
    logp: torch.Tensor
    returns: torch.Tensor
    adv: torch.Tensor


@dataclass
class RolloutStore:
    current: Rollout | None = None
    episodes: list = field(default_factory=list)

    def add(self, rollout):
        self.current = rollout
        self.episodes.append(rollout)

    def minibatches(self, size):
        n = self.current.obs.shape[0]
        for idx in torch.randperm(n, device=device).split(size):
            r = self.current
            yield r.obs[idx], r.actions[idx], r.logp[idx], r.returns[idx], r.adv[idx]


@torch.no_grad()
def collect(policy, obs, horizon=24):
    steps = []
    for _ in range(horizon):
        dist, value = policy(obs)
        action = dist.sample()
        reward = -obs[:, 0].abs() + 0.1 * action.float()
        steps.append((obs, action, dist.log_prob(action), reward, value))
        obs = 0.95 * obs + 0.2 * torch.randn_like(obs)
    ret, returns = policy(obs)[1], []
    for _, _, _, reward, _ in reversed(steps):
        ret = reward + 0.98 * ret
        returns.insert(0, ret)
    cols = [torch.cat(c) for c in zip(*[(o, a, lp, v) for o, a, lp, _, v in steps], strict=True)]
    returns = torch.cat(returns)
    adv = returns - cols[3]
    return Rollout(cols[0], cols[1], cols[2], returns, (adv - adv.mean()) / (adv.std() + 1e-6)), obs


torch.manual_seed(0)
policy = Policy().to(device)
opt = torch.optim.Adam(policy.parameters(), lr=3e-4)
store = RolloutStore()
obs = torch.randn(48, 24, device=device)
for it in range(24):
    rollout, obs = collect(policy, obs)
    store.add(rollout)
    for o, a, old_logp, ret, adv in store.minibatches(384):
        dist, value = policy(o)
        ratio = (dist.log_prob(a) - old_logp).exp()
        surrogate = torch.minimum(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
        loss = -surrogate + 0.5 * (value - ret).pow(2).mean() - 0.01 * dist.entropy().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if it % 6 == 0:
        print(f"iteration {it} return {rollout.returns.mean().item():.3f}")
