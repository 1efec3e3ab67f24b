import gc

import torch
from torch import nn


class MicroBatch:
    def __init__(self, obs, act, adv):
        self.obs, self.act, self.adv, self.old = obs, act, adv, None
        self.objective = self._make()

    def _make(self):
        def objective(policy, clip=0.2):
            logp = torch.distributions.Categorical(logits=policy(self.obs)).log_prob(self.act)
            if self.old is None:
                self.old = logp.detach()
            ratio = (logp - self.old).exp()
            return -torch.min(ratio * self.adv, ratio.clamp(1 - clip, 1 + clip) * self.adv).mean()

        return objective


def rollout(policy, n=512, dim=40):
    obs = torch.randn(n, dim)
    with torch.no_grad():
        act = torch.distributions.Categorical(logits=policy(obs)).sample()
    adv = obs[:, 0] * (act == 0) - obs[:, 1] * (act == 1)
    return obs, act, (adv - adv.mean()) / (adv.std() + 1e-6)


torch.manual_seed(133)
torch.set_num_threads(1)
policy = nn.Sequential(nn.Linear(40, 64), nn.Tanh(), nn.Linear(64, 5))
opt = torch.optim.Adam(policy.parameters(), 3e-4)
gc.disable()
try:
    for iteration in range(60):
        mb = MicroBatch(*rollout(policy))
        for _ in range(2):
            loss = mb.objective(policy)
            opt.zero_grad()
            loss.backward()
            opt.step()
        del mb
        gc.collect(1)
        if iteration % 20 == 0:
            print(iteration, loss.item())
finally:
    gc.enable()
