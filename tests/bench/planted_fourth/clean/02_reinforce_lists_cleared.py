import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(102)
torch.set_num_threads(1)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 96), nn.Tanh(), nn.Linear(96, 2))
        self.log = {"logp": [], "entropy": [], "reward": []}

    def act(self, obs):
        dist = Categorical(logits=self.net(obs))
        a = dist.sample()
        self.log["logp"].append(dist.log_prob(a))
        self.log["entropy"].append(dist.entropy())
        return a

    def finish(self, gamma=0.97, beta=0.01):
        g, returns = 0.0, []
        for r in reversed(self.log["reward"]):
            g = r + gamma * g
            returns.insert(0, g)
        returns = torch.stack(returns)
        returns = (returns - returns.mean()) / (returns.std() + 1e-6)
        loss = -(torch.stack(self.log["logp"]) * returns).mean() - beta * torch.stack(self.log["entropy"]).mean()
        for items in self.log.values():
            items.clear()
        return loss


policy = Policy()
opt = torch.optim.Adam(policy.parameters(), 1e-3)
scores = []
for episode in range(40):
    obs, total = torch.randn(64, 32), 0.0
    for t in range(6 + episode % 12):
        a = policy.act(obs)
        reward = torch.where(a == (obs[:, 0] > 0).long(), 1.0, -0.2)
        policy.log["reward"].append(reward)
        total += reward.mean().item()
        obs = torch.roll(obs, 1, 1) + 0.1 * torch.randn_like(obs)
    loss = policy.finish()
    opt.zero_grad()
    loss.backward()
    opt.step()
    scores.append(total / (t + 1))
print([round(s, 2) for s in scores[::8]])
