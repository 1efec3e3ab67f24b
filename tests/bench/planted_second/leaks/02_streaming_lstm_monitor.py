import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


class Forecaster(nn.Module):
    def __init__(self, n_sensors=12, hidden=96):
        super().__init__()
        self.rnn = nn.LSTM(n_sensors, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, n_sensors)

    def forward(self, x, state=None):
        h, state = self.rnn(x, state)
        return self.out(h), state


def chunks(n, batch=16, length=20):
    g = torch.Generator().manual_seed(1)
    for _ in range(n):
        yield torch.randn(batch, length + 1, 12, generator=g)


net = Forecaster()
optim = torch.optim.RMSprop(net.parameters(), lr=1e-3)
mse = nn.MSELoss()

# fit on windows (stateless)
for window in chunks(15):
    pred, _ = net(window[:, :-1])
    loss = mse(pred, window[:, 1:])
    optim.zero_grad()
    loss.backward()
    optim.step()
print("fitted", loss.item())

# now run over the live stream, the state goes on from one chunk to the next
net.eval()
state = None
alarms = 0
for i, chunk in enumerate(chunks(60)):
    pred, state = net(chunk[:, :-1], state)  # LEAK
    err = (pred - chunk[:, 1:]).pow(2).mean(dim=(1, 2))
    alarms += int((err > 1.3).sum())
    if i % 20 == 0:
        print(i, "alarms so far", alarms)
