import torch
from torch import nn
from torch.distributions import Normal


class Storage:
    def __init__(self, T, N, obs, act):
        self.obs = torch.zeros(T, N, obs)
        self.act = torch.zeros(T, N, act)
        self.logp, self.rew, self.val = (torch.zeros(T, N) for _ in range(3))

    def put(self, t, obs, act, logp, rew, val):
        for dst, src in ((self.obs, obs), (self.act, act), (self.logp, logp), (self.rew, rew), (self.val, val)):
            dst[t].copy_(src)


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 3))
        self.v = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 1))
        self.logstd = nn.Parameter(torch.zeros(3))

    def forward(self, o):
        return Normal(self.mu(o), self.logstd.exp()), self.v(o).squeeze(-1)


torch.set_num_threads(1)
torch.manual_seed(25)
ag, st = Agent(), Storage(16, 8, 10, 3)
opt = torch.optim.Adam(ag.parameters(), lr=3e-4)
for it in range(35):
    obs = torch.randn(8, 10)
    with torch.no_grad():
        for t in range(16):
            d, v = ag(obs)
            a = d.sample()
            st.put(t, obs, a, d.log_prob(a).sum(-1), -(a - obs[:, :3]).pow(2).sum(-1), v)
            obs = torch.randn(8, 10)
        adv = st.rew - st.val
    for _ in range(3):
        d, v = ag(st.obs)
        ratio = (d.log_prob(st.act).sum(-1) - st.logp).exp()
        loss = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean() + 0.5 * (v - st.rew).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if it % 10 == 0:
        print(it, loss.item(), st.rew.mean().item())
