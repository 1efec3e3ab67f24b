import torch
from torch import nn

torch.manual_seed(118)
torch.set_num_threads(1)


def detach(state):
    return tuple(s.detach() for s in state)


class Stream:
    def __init__(self, rows=24, seed=0):
        self.phase = torch.rand(rows, 1)

    def window(self, n=20):
        t = self.phase + torch.arange(n + 1) * 0.05
        self.phase = t[:, -1:]
        return torch.sin(6.28 * t)[..., None]


class Net(nn.Module):
    def __init__(self, h=128):
        super().__init__()
        self.rnn, self.out = nn.LSTM(1, h, num_layers=2, batch_first=True), nn.Linear(h, 1)

    def forward(self, x, state):
        y, state = self.rnn(x, state)
        return self.out(y), state


net, stream, state = Net(), Stream(), None
opt = torch.optim.Adam(net.parameters(), 2e-3)
for i in range(60):
    w = stream.window()
    pred, state = net(w[:, :-1], state)
    loss = (pred - w[:, 1:]).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    state = detach(state)
    if i % 20 == 0:
        print(i, loss.item())
