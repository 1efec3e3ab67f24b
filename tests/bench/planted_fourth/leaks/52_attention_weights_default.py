import torch
from torch import nn

torch.manual_seed(61)
torch.set_num_threads(1)


class Layer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, heads, batch_first=True)
        self.ff = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))

    def forward(self, x):
        y = self.norm(x)
        out, _ = self.attn(y, y, y)
        x = x + out
        return x + self.ff(x)


class Encoder(nn.Module):
    def __init__(self, channels=6, d=32, heads=4, depth=2):
        super().__init__()
        self.inp = nn.Linear(channels, d)
        self.layers = nn.ModuleList(Layer(d, heads) for _ in range(depth))
        self.out = nn.Linear(d, 1)

    def forward(self, x):
        h = self.inp(x)
        for layer in self.layers:
            h = layer(h)
        return self.out(h).squeeze(-1)


def sensors(n=2, length=512):
    x = torch.randn(n, length, 6).cumsum(1) * 0.1
    return x, x.std(-1)


model = Encoder()
opt = torch.optim.Adam(model.parameters(), 1e-3)
model.train()
for step in range(24):
    x, y = sensors()
    loss = nn.functional.mse_loss(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 8 == 0:
        print(step, loss.item())
