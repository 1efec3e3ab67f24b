"""Two losses of a flow model; the second joins after a first phase."""
import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(1)


class RunningMean:
    def __init__(self, alpha=0.95):
        self.alpha, self.value = alpha, None

    def __call__(self, x):
        x = float(x)
        self.value = x if self.value is None else self.alpha * self.value + (1 - self.alpha) * x
        return self.value


body = nn.Sequential(nn.Linear(48, 128), nn.LeakyReLU(), nn.Linear(128, 128), nn.LeakyReLU())
logf, policy = nn.Linear(128, 1), nn.Linear(128, 4)
opt = torch.optim.Adam([*body.parameters(), *logf.parameters(), *policy.parameters()], 3e-4)
first, second = RunningMean(), RunningMean()
for it in range(90):
    s = torch.rand(256, 48)
    h = body(s)
    a = (logf(h).squeeze(1) - s[:, :8].sum(1).log()).pow(2).mean()
    b = (logf(h).squeeze(1) + policy(h).log_softmax(-1).amax(-1) - logf(body(s + 0.05)).squeeze(1)).pow(2).mean()
    loss = a if it < 50 else a + b
    opt.zero_grad()
    loss.backward()
    opt.step()
    first(a), second(b)
    if it % 30 == 0:
        print(it, first.value, second.value)
