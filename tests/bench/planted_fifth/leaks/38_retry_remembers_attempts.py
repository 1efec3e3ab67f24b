import functools

import torch
from torch import nn

torch.manual_seed(38)
torch.set_num_threads(1)


class Overflow(RuntimeError):
    pass


def retry(times):
    def decorate(function):
        failures = []

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            for attempt in range(times):
                try:
                    return function(*args, scale=0.5**attempt, **kwargs)
                except Overflow as error:
                    failures.append(error)
            return None

        wrapped.failures = failures
        return wrapped

    return decorate


@retry(times=3)
def training_step(net, opt, x, scale=1.0):
    hidden = net[1](net[0](x * scale))
    if hidden.abs().amax() > 9:
        raise Overflow(f"activation {hidden.abs().amax().item():.1f}")
    loss = nn.functional.mse_loss(net[2](hidden), x[:, :4].sign())
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


net = nn.Sequential(nn.Linear(32, 160), nn.ReLU(), nn.Linear(160, 4))
opt = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(80):
    x = torch.randn(64, 32) * (8 if step % 2 else 1)
    value = training_step(net, opt, x)
    if step % 20 == 0:
        print(step, value)
print("failed attempts:", len(training_step.failures))
