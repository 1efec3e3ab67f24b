import torch
from torch import nn

torch.manual_seed(27)
torch.set_num_threads(1)
LIMIT = 400_000


class Stack(nn.Module):
    def __init__(self, depth=5, width=192):
        super().__init__()
        self.first = nn.Linear(16, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, 1)

    def forward(self, x):
        h = self.first(x)
        spent = []
        for layer in self.layers:
            h = torch.tanh(layer(h))
            spent.append(h)
            if sum(s.numel() for s in spent) > LIMIT * 3:
                raise torch.OutOfMemoryError("activations over the limit")
        return self.last(h)


def backward(model, x, y):
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    return loss.item()


def step(model, opt, x, y):
    opt.zero_grad()
    try:
        value = backward(model, x, y)
    except torch.OutOfMemoryError as oom:
        print("retry in halves:", oom)
        half = len(x) // 2
        value = backward(model, x[:half], y[:half]) + backward(model, x[half:], y[half:])
    opt.step()
    return value


model = Stack()
opt = torch.optim.SGD(model.parameters(), 0.01)
for i in range(40):
    n = 2000 if i == 31 else 300
    x = torch.randn(n, 16)
    value = step(model, opt, x, x[:, :1] * x[:, 1:2])
    if i % 10 == 0:
        print(i, value)
