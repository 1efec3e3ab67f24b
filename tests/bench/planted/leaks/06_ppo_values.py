import torch
from torch import nn
from torch.distributions import Categorical


class ActorCritic(nn.Module):
    def __init__(self, obs=8, act=4, width=128):
        super().__init__()
        self.pi = nn.Sequential(nn.Linear(obs, width), nn.Tanh(), nn.Linear(width, act))
        self.v = nn.Sequential(nn.Linear(obs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))


class PPO:
    clip = 0.2

    def __init__(self):
        self.ac = ActorCritic()
        self.opt = torch.optim.Adam(self.ac.parameters(), lr=3e-4)
        self.adv_history = []

    def rollout(self, n=64):
        obs = torch.randn(n, 8)
        with torch.no_grad():
            dist = Categorical(logits=self.ac.pi(obs))
            act = dist.sample()
            logp = dist.log_prob(act)
        rew = (act == obs[:, :4].argmax(1)).float()
        return obs, act, logp, rew

    def advantages(self, obs, rew):
        ret = torch.zeros_like(rew)
        run = 0.0
        for i in reversed(range(len(rew))):
            run = rew[i] + 0.9 * run
            ret[i] = run
        adv = ret - self.ac.v(obs).squeeze(-1)
        return adv, ret

    def update(self):
        obs, act, old, rew = self.rollout()
        adv, ret = self.advantages(obs, rew)
        self.adv_history.append(adv)  # LEAK
        norm = ((adv - adv.mean()) / (adv.std() + 1e-6)).detach()
        for _ in range(2):
            lp = Categorical(logits=self.ac.pi(obs)).log_prob(act)
            ratio = (lp - old).exp()
            pg = -torch.min(ratio * norm, ratio.clamp(1 - self.clip, 1 + self.clip) * norm).mean()
            vf = (self.ac.v(obs).squeeze(-1) - ret).pow(2).mean()
            self.opt.zero_grad()
            (pg + 0.5 * vf).backward()
            self.opt.step()
        return rew.mean().item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(1)
    agent = PPO()
    for it in range(60):
        r = agent.update()
        if it % 20 == 0:
            print(it, r, torch.stack(agent.adv_history).std().item())
