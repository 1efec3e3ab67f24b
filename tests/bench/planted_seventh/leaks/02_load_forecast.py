"""Electricity load forecasting with an LSTM, watched by a monitor that follows the stream."""

import math

import torch
from torch import nn

torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Forecaster(nn.Module):
    def __init__(self, n_series, hidden):
        super().__init__()
        self.cell = nn.LSTMCell(n_series, hidden)
        self.out = nn.Linear(hidden, n_series)

    def step(self, x, state):
        state = self.cell(x, state)
        return self.out(state[0]), state

    def forward(self, window):
        state, preds = None, []
        for t in range(window.shape[1]):
            y, state = self.step(window[:, t], state)
            preds.append(y)
        return torch.stack(preds, dim=1)


class StreamMonitor:
    """Runs the current model over the live feed and reports how far off it is."""

    def __init__(self, model):
        self.model = model
        self.state = None
        self.prev = None
        self.error = 0.0

    def observe(self, x):
        self.model.eval()
        if self.prev is not None:
            self.error = 0.95 * self.error + 0.05 * float((self.prev - x).abs().mean())
        self.prev, self.state = self.model.step(x, self.state)
        self.model.train()


def series(batch, length, n_series, offset):
    t = torch.arange(offset, offset + length, device=device).float()
    phase = torch.rand(batch, 1, n_series, device=device) * 6.28
    wave = torch.sin(2 * math.pi * t[None, :, None] / 24 + phase)
    return wave + 0.1 * torch.randn(batch, length, n_series, device=device)


torch.manual_seed(1)
model = Forecaster(n_series=16, hidden=96).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
monitor = StreamMonitor(model)

for step in range(50):
    window = series(32, 13, 16, step)
    pred = model(window[:, :-1])
    loss = nn.functional.mse_loss(pred, window[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

    monitor.observe(series(48, 1, 16, step)[:, 0])
    if step % 10 == 0:
        print(f"step {step} loss {loss.item():.4f} live error {monitor.error:.4f}")
