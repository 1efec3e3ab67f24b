import torch
from torch import nn
from torchmetrics import CatMetric, MeanMetric

torch.manual_seed(124)
torch.set_num_threads(1)


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.LSTM(2, 24, batch_first=True), nn.Linear(24, 64)

    def forward(self, x):
        return self.fc(self.rnn(x)[1][0][-1])


model = Forecaster()
opt = torch.optim.Adam(model.parameters(), 5e-3)
mean_loss, errors = MeanMetric(), CatMetric()
for epoch in range(10):
    for _ in range(8):
        t = torch.arange(84) / 6 + 6 * torch.rand(48, 1)
        wave = torch.stack([t.sin(), t.cos()], -1)
        out = model(wave[:, :20])
        loss = nn.functional.mse_loss(out, wave[:, 20:, 0])
        opt.zero_grad()
        loss.backward()
        opt.step()
        mean_loss.update(loss.item())
        errors.update((out - wave[:, 20:, 0]).detach().abs())
    print(epoch, mean_loss.compute().item(), errors.compute().flatten().quantile(0.9).item())
    mean_loss.reset()
    errors.reset()
