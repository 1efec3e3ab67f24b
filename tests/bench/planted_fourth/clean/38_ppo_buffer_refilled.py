import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(138)
torch.set_num_threads(1)


class Buffer:
    def __init__(self):
        self.rows = []

    def add(self, *row):
        self.rows.append(row)

    def flush(self):
        columns = [torch.stack(c) for c in zip(*self.rows)]
        self.rows = []
        return columns


actor = nn.Sequential(nn.Linear(24, 128), nn.Tanh(), nn.Linear(128, 4))
critic = nn.Sequential(nn.Linear(24, 128), nn.Tanh(), nn.Linear(128, 1))
opt = torch.optim.Adam([*actor.parameters(), *critic.parameters()], 1e-3)
buffer, obs, stats = Buffer(), torch.randn(64, 24), []
for iteration in range(25):
    for _ in range(20):
        with torch.no_grad():
            dist = Categorical(logits=actor(obs))
            a = dist.sample()
            buffer.add(obs, a, dist.log_prob(a), (a == obs[:, :4].argmax(1)).float(), critic(obs).squeeze(1))
        obs = torch.randn(64, 24)
    s, a, old, r, v = (c.flatten(0, 1) for c in buffer.flush())
    adv = r - v
    adv = (adv - adv.mean()) / (adv.std() + 1e-6)
    for idx in torch.randperm(len(s)).split(320):
        ratio = (Categorical(logits=actor(s[idx])).log_prob(a[idx]) - old[idx]).exp()
        gain = torch.min(ratio * adv[idx], ratio.clamp(0.8, 1.2) * adv[idx]).mean()
        loss = -gain + 0.5 * (critic(s[idx]).squeeze(1) - r[idx]).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    stats.append({"reward": r.mean().item(), "loss": loss.item()})
print(stats[0], stats[-1])
