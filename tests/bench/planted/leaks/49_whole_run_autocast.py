import torch
from torch import nn
import torch.nn.functional as F

DIM = 96


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(DIM, 8) * 0.3)
        self.w2 = nn.Parameter(torch.randn(DIM, DIM) * 0.1)
        self.w3 = nn.Parameter(torch.randn(1, DIM) * 0.1)

    @staticmethod
    def run(ws, x):
        for w in ws[:-1]:
            x = torch.tanh(F.linear(x, w))
        return F.linear(x, ws[-1])


def episode(model, x, y, lr=0.05):
    fast = [p.detach().clone().requires_grad_() for p in model.parameters()]
    loss = F.mse_loss(model.run(fast, x[:16]).float(), y[:16])
    grads = torch.autograd.grad(loss, fast)
    fast = [(w - lr * g).detach().requires_grad_() for w, g in zip(fast, grads)]
    query = F.mse_loss(model.run(fast, x[16:]).float(), y[16:])
    return query, torch.autograd.grad(query, fast)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Learner()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # LEAK
        for it in range(60):
            x = torch.randn(32, 8)
            y = (x @ torch.randn(8, 1)).sin()
            query, grads = episode(model, x, y)
            for p, g in zip(model.parameters(), grads):
                p.grad = g
            opt.step()
            if it % 20 == 0:
                print(it, query.item())


main()
