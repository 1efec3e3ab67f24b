import math

import torch

torch.manual_seed(139)
torch.set_num_threads(1)


def init(sizes):
    params = []
    for i, o in zip(sizes, sizes[1:]):
        params += [(torch.randn(i, o) / math.sqrt(i)).requires_grad_(), torch.zeros(o, requires_grad=True)]
    return params


def forward(params, x):
    for k in range(0, len(params) - 2, 2):
        x = torch.relu(x @ params[k] + params[k + 1])
    return x @ params[-2] + params[-1]


params = init([30, 300, 300, 8])
velocity = [torch.zeros_like(p) for p in params]
w = torch.randn(30, 8)
trace = []
for step in range(80):
    x = torch.randn(128, 30)
    y = (x @ w).argmax(1)
    logits = forward(params, x)
    loss = (logits.logsumexp(1) - logits.gather(1, y[:, None]).squeeze(1)).mean()
    grads = torch.autograd.grad(loss, params)
    with torch.no_grad():
        for p, v, g in zip(params, velocity, grads):
            v.mul_(0.9).add_(g)
            p.sub_(0.02 * v)
    trace.append((loss.item(), sum(g.norm().item() for g in grads)))
print(trace[0], trace[-1])
