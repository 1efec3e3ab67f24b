import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)
torch.set_num_threads(1)


class Corridor:
    def __init__(self, envs=256, width=32):
        self.envs, self.width = envs, width

    def reset(self):
        self.x = torch.randn(self.envs, self.width)
        return self.x

    def step(self, a):
        reward = torch.where(a == (self.x[:, 0] > 0).long(), 1.0, -0.2)
        self.x = torch.roll(self.x, 1, dims=1) + 0.1 * torch.randn_like(self.x)
        return self.x, reward


class Policy(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 96), nn.Tanh(), nn.Linear(96, 2))
        self.saved_log_probs = []
        self.rewards = []
        self.entropies = []

    def act(self, obs):
        dist = Categorical(logits=self.net(obs))
        a = dist.sample()
        self.saved_log_probs.append(dist.log_prob(a))
        self.entropies.append(dist.entropy())
        return a


def finish_episode(policy, opt, gamma=0.97):
    g, returns = 0.0, []
    for r in reversed(policy.rewards):
        g = r + gamma * g
        returns.append(g)
    returns = torch.stack(returns[::-1])
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    loss = -(torch.stack(policy.saved_log_probs) * returns).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    del policy.rewards[:]
    del policy.saved_log_probs[:]
    return returns


env = Corridor()
policy = Policy(32)
opt = torch.optim.Adam(policy.parameters(), 1e-3)
for episode in range(45):
    obs = env.reset()
    total = 0.0
    for t in range(12):
        obs, r = env.step(policy.act(obs))
        policy.rewards.append(r)
        total += r.mean().item()
    finish_episode(policy, opt)
    if episode % 15 == 0:
        recent = torch.stack(policy.entropies[-12:]).mean().item()
        print(f"episode {episode} return {total:.2f} entropy {recent:.3f}")
