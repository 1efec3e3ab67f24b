"""Curvature-aware training of a tiny regressor with hand written updates."""
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(3)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(10, 128)
        self.b = nn.Linear(128, 128)
        self.c = nn.Linear(128, 1)

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


def clear(net):
    for p in net.parameters():
        if p.grad is not None:
            p.grad.data.zero_()


def train(net, iters=60, lr=1e-2):
    opt = torch.optim.SGD(net.parameters(), lr=lr)
    for it in range(iters):
        x = torch.randn(64, 10)
        y = x.pow(2).sum(1, keepdim=True).sqrt()
        clear(net)
        loss = (net(x) - y).pow(2).mean()
        loss.backward(create_graph=True)  # LEAK
        gnorm = sum(p.grad.detach().pow(2).sum() for p in net.parameters()).sqrt()
        scale = min(1.0, 5.0 / (gnorm.item() + 1e-8))
        for p in net.parameters():
            p.grad.data.mul_(scale)
        opt.step()
        if it % 15 == 0:
            print(it, f"{loss.item():.3f}", f"|g|={gnorm.item():.3f}")


train(Net())
