import torch
from torch import nn
from torchmetrics import CatMetric, MeanMetric

torch.manual_seed(24)
torch.set_num_threads(1)


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 24, batch_first=True)
        self.fc = nn.Linear(24, 64)

    def forward(self, x):
        _, (h, _) = self.rnn(x)
        return self.fc(h[-1])


def window(n):
    t = torch.arange(84) / 6 + 6 * torch.rand(n, 1)
    wave = t.sin() + 0.1 * torch.randn(n, 84)
    past = torch.stack([wave[:, :20], wave[:, :20].diff(dim=1, prepend=wave[:, :1]), t[:, :20].cos(), t[:, :20].sin()], -1)
    return past, wave[:, 20:]


model = Forecaster()
opt = torch.optim.Adam(model.parameters(), 5e-3)
mean_loss, errors = MeanMetric(), CatMetric()
for epoch in range(12):
    for _ in range(8):
        past, future = window(48)
        out = model(past)
        loss = nn.functional.mse_loss(out, future)
        opt.zero_grad()
        loss.backward()
        opt.step()
        mean_loss.update(loss.item())
        errors.update((out - future).detach().abs())
    print(epoch, mean_loss.compute().item(), "p90", errors.compute().flatten().quantile(0.9).item())
    mean_loss.reset()
errors.reset()
