"""Truncated backpropagation through time on a long stream of sensor readings."""

import torch
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class StreamModel(nn.Module):
    def __init__(self, n_in=12, hidden=64):
        super().__init__()
        self.rnn = nn.LSTM(n_in, hidden, batch_first=True)
        self.out = nn.Linear(hidden, n_in)
        self.state = None

    def forward(self, x):
        if self.state is not None:
            self.state = tuple(s.detach() for s in self.state)
        h, self.state = self.rnn(x, self.state)
        return self.out(h)

    def reset(self):
        self.state = None


def stream(batch, total, n_in):
    t = torch.arange(total).float()[None, :, None] * 0.2
    return torch.sin(t + torch.rand(batch, 1, n_in) * 6.28) + 0.05 * torch.randn(batch, total, n_in)


def main(chunk=16):
    torch.manual_seed(0)
    data = stream(16, 16 * 21, 12).to(device)
    model = StreamModel().to(device)
    opt = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    for epoch in range(2):
        model.reset()
        total, count = 0.0, 0
        for start in range(0, data.shape[1] - chunk, chunk):
            x = data[:, start : start + chunk]
            y = data[:, start + 1 : start + chunk + 1]
            loss = nn.functional.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            total, count = total + loss.item(), count + 1
        print(f"epoch {epoch} loss {total / count:.4f}")


if __name__ == "__main__":
    main()
