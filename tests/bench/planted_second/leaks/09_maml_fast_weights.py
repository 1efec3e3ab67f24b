import torch
from torch import nn
from torch.func import functional_call

torch.set_num_threads(1)
torch.manual_seed(1)

net = nn.Sequential(nn.Linear(1, 80), nn.ReLU(), nn.Linear(80, 80), nn.ReLU(), nn.Linear(80, 1))
meta_opt = torch.optim.Adam(net.parameters(), lr=1e-3)
INNER_LR, INNER_STEPS, TASKS = 0.02, 2, 3
adapted = {}


def task():
    amp, phase = torch.rand(1) * 4 + 0.1, torch.rand(1) * 3.14

    def draw(n):
        x = torch.rand(n, 1) * 10 - 5
        return x, amp * torch.sin(x + phase)

    return draw


def inner_loop(draw):
    fast = dict(net.named_parameters())
    for _ in range(INNER_STEPS):
        x, y = draw(10)
        loss = nn.functional.mse_loss(functional_call(net, fast, (x,)), y)
        grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
        fast = {k: w - INNER_LR * g for (k, w), g in zip(fast.items(), grads)}
    return fast


for it in range(60):
    meta_loss = 0.0
    for t in range(TASKS):
        draw = task()
        fast = inner_loop(draw)
        adapted[(it, t)] = fast  # LEAK
        x, y = draw(20)
        meta_loss = meta_loss + nn.functional.mse_loss(functional_call(net, fast, (x,)), y)
    meta_opt.zero_grad()
    (meta_loss / TASKS).backward()
    meta_opt.step()
    if it % 20 == 0:
        print(it, meta_loss.item() / TASKS, "adapted:", len(adapted))
