import torch
from torch import nn

torch.manual_seed(142)
torch.set_num_threads(1)
means, colours = nn.Parameter(torch.rand(1500, 2)), nn.Parameter(torch.rand(1500, 24))
opt = torch.optim.Adam([{"params": [means], "lr": 1e-3}, {"params": [colours], "lr": 1e-2}])


def swap(group, value):
    old = group["params"][0]
    state = opt.state.pop(old)
    new = nn.Parameter(value)
    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(new), torch.zeros_like(new)
    opt.state[new] = state
    group["params"] = [new]
    return new


@torch.no_grad()
def densify(k=30):
    keep = torch.randperm(len(means))[k:]
    chosen = torch.randint(len(means), (k,))
    return [swap(g, torch.cat([p[keep], p[chosen] + 0.01])) for g, p in zip(opt.param_groups, (means, colours))]


for it in range(100):
    points = torch.rand(64, 2)
    weights = (-400 * torch.cdist(points, means).pow(2)).softmax(1)
    loss = (weights @ colours - (points @ torch.ones(2, 24)).sin()).abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 4 == 3:
        means, colours = densify()
    if it % 25 == 0:
        print(it, loss.item(), len(opt.state))
