import torch
from torch import nn

torch.manual_seed(136)
torch.set_num_threads(1)


def fit(target_fn, iterations=10):
    net = nn.Sequential(nn.Linear(2, 96), nn.Tanh(), nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 1))
    opt = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=4, history_size=4)
    x = torch.rand(300, 2) * 2 - 1
    y = target_fn(x)
    losses = []

    def closure():
        opt.zero_grad()
        loss = (net(x).squeeze(1) - y).pow(2).mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(iterations):
        opt.step(closure)
    return losses[0], losses[-1], len(losses)


TARGETS = {
    "saddle": lambda x: x[:, 0] * x[:, 1],
    "bump": lambda x: torch.exp(-4 * x.pow(2).sum(1)),
    "wave": lambda x: torch.sin(4 * x[:, 0]) * x[:, 1],
}
for name, fn in TARGETS.items():
    first, last, calls = fit(fn)
    print(f"{name:7s} {first:.4f} -> {last:.5f} in {calls}")
