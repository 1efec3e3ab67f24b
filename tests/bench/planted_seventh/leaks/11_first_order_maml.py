"""First-order MAML for sinusoid regression in mixed precision."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def make_net(hidden=160):
    return nn.Sequential(
        nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    ).to(device)


def sample_task(shots):
    amp = torch.rand(1, device=device) * 4.9 + 0.1
    phase = torch.rand(1, device=device) * 3.14
    x = torch.rand(2 * shots, 1, device=device) * 10 - 5
    y = amp * torch.sin(x + phase)
    return (x[:shots], y[:shots]), (x[shots:], y[shots:])


class MetaLearner:
    def __init__(self, inner_lr=0.01, inner_steps=2):
        self.net = make_net()
        self.opt = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps

    def loss(self, weights, x, y):
        return F.mse_loss(functional_call(self.net, weights, (x,)).float(), y)

    def adapt(self, x, y):
        weights = {n: p.detach().clone().requires_grad_() for n, p in self.net.named_parameters()}
        for _ in range(self.inner_steps):
            grads = torch.autograd.grad(self.loss(weights, x, y), list(weights.values()))
            weights = {
                n: (w - self.inner_lr * g).detach().requires_grad_()
                for (n, w), g in zip(weights.items(), grads, strict=True)
            }
        return weights

    def meta_step(self, tasks):
        self.opt.zero_grad()
        total = 0.0
        for support, query in tasks:
            weights = self.adapt(*support)
            loss = self.loss(weights, *query)
            grads = torch.autograd.grad(loss, list(weights.values()))
            for p, g in zip(self.net.parameters(), grads, strict=True):
                p.grad = g / len(tasks) if p.grad is None else p.grad + g / len(tasks)
            total += loss.item()
        self.opt.step()
        return total / len(tasks)


def main():
    torch.manual_seed(0)
    learner = MetaLearner()
    with torch.autocast(device, dtype=torch.bfloat16):
        for it in range(30):
            loss = learner.meta_step([sample_task(10) for _ in range(2)])
            if it % 10 == 0:
                print(f"iteration {it} query loss {loss:.4f}")


main()
