"""PPO whose memory is cleared after each update."""

import torch
from torch import nn
from torch.distributions import Normal

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Memory:
    def __init__(self):
        self.obs, self.act, self.logp, self.rew = [], [], [], []

    def add(self, obs, act, logp, rew):
        self.obs.append(obs)
        self.act.append(act)
        self.logp.append(logp)
        self.rew.append(rew)

    def clear(self):
        for column in (self.obs, self.act, self.logp, self.rew):
            column.clear()


class ActorCritic(nn.Module):
    def __init__(self, obs_dim=20, act_dim=3):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, act_dim))
        self.value = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.zeros(act_dim))

    def dist(self, obs):
        return Normal(self.mu(obs), self.log_std.exp())


def update(net, opt, memory, epochs=3):
    ret, returns = torch.zeros_like(memory.rew[0]), []
    for rew in reversed(memory.rew):
        ret = rew + 0.97 * ret
        returns.insert(0, ret)
    obs, act, old = torch.cat(memory.obs), torch.cat(memory.act), torch.cat(memory.logp)
    returns = torch.cat(returns)
    for _ in range(epochs):
        value = net.value(obs).squeeze(1)
        adv = (returns - value).detach()
        ratio = (net.dist(obs).log_prob(act).sum(1) - old).exp()
        loss = -torch.minimum(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean() + (value - returns).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


torch.manual_seed(0)
net = ActorCritic().to(device)
opt = torch.optim.Adam(net.parameters(), lr=3e-4)
memory = Memory()
obs = torch.randn(32, 20, device=device)
for it in range(16):
    for _ in range(12):
        with torch.no_grad():
            dist = net.dist(obs)
            act = dist.sample()
            logp = dist.log_prob(act).sum(1)
        memory.add(obs, act, logp, -(obs[:, :3] - act).pow(2).sum(1))
        obs = 0.9 * obs + 0.3 * torch.randn_like(obs)
    loss = update(net, opt, memory)
    memory.clear()
    if it % 4 == 0:
        print(f"iteration {it} loss {loss:.3f}")
