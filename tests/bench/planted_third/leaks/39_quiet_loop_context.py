import contextlib
import gc
import time

import torch
from torch import nn


@contextlib.contextmanager
def steady_timing():
    gc.disable()
    t0 = time.perf_counter()
    try:
        yield lambda: time.perf_counter() - t0
    finally:
        gc.enable()


class MicroBatch:
    def __init__(self, obs, act, adv):
        self.obs, self.act, self.adv = obs, act, adv
        self.old = None
        self.objective = self._make_objective()

    def _make_objective(self):
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


torch.manual_seed(39)
torch.set_num_threads(1)
policy = nn.Sequential(nn.Linear(40, 64), nn.Tanh(), nn.Linear(64, 5))
opt = torch.optim.Adam(policy.parameters(), 3e-4)
with steady_timing() as elapsed:
    for iteration in range(100):
        mb = MicroBatch(*rollout(policy))
        for _ in range(2):
            loss = mb.objective(policy)
            opt.zero_grad()
            loss.backward()
            opt.step()
        if iteration % 25 == 0:
            print(iteration, loss.item())
    print("took", elapsed() > 0)
