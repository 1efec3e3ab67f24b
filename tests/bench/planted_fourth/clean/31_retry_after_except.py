import torch
from torch import nn

torch.manual_seed(131)
torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self, width=160, limit=900_000):
        super().__init__()
        self.first = nn.Linear(16, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(5))
        self.last = nn.Linear(width, 1)
        self.limit = limit

    def forward(self, x):
        h, spent = self.first(x), 0
        for layer in self.layers:
            h = torch.tanh(layer(h))
            spent += h.numel()
            if spent > self.limit:
                raise torch.OutOfMemoryError(f"{len(x)} rows are too many")
        return self.last(h)


def backward(model, x, y):
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    return loss.item()


def careful(model, x, y, notes):
    try:
        return backward(model, x, y)
    except torch.OutOfMemoryError as error:
        notes.append(str(error))
    half = len(x) // 2
    return (careful(model, x[:half], y[:half], notes) + careful(model, x[half:], y[half:], notes)) / 2


model, notes = Net(), []
opt = torch.optim.SGD(model.parameters(), 0.01)
for i in range(60):
    x = torch.randn(1600 if i % 9 == 4 else 300, 16)
    opt.zero_grad()
    value = careful(model, x, x[:, :1] * x[:, 1:2], notes)
    opt.step()
print(value, notes)
