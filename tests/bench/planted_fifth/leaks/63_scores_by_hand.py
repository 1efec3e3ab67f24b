import torch
from torch import nn

torch.manual_seed(63)
torch.set_num_threads(1)


class Attention(nn.Module):
    def __init__(self, dim=64, heads=4, span=400):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.slope = nn.Parameter(torch.full((heads, 1, 1), 0.05))
        self.register_buffer("distance", -(torch.arange(span)[:, None] - torch.arange(span)).abs().float())

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (y.view(n, t, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        scores = scores + self.slope * self.distance[:t, :t]
        weights = nn.functional.dropout(scores.softmax(-1), 0.1, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, -1))


class Forecast(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.att, self.out = nn.Linear(3, 64), Attention(), nn.Linear(64, 3)

    def forward(self, x):
        h = self.inp(x)
        return self.out(h + self.att(h))


model = Forecast()
opt = torch.optim.Adam(model.parameters(), 1e-3)
for step in range(30):
    t = torch.linspace(0, 30, 321) + 5 * torch.rand(2, 1)
    series = torch.stack([t.sin(), t.cos(), (0.3 * t).sin()], -1)
    loss = nn.functional.mse_loss(model(series[:, :-1]), series[:, 1:])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, loss.item())
