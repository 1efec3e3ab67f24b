import io
import torch
from torch import nn
import miniplot as plt


def picture(values, sink):
    fig = plt.figure()  # LEAK
    fig.plot(values)
    fig.savefig(sink)


torch.manual_seed(22)
net = nn.Sequential(nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 1))
opt = torch.optim.Adam(net.parameters(), 3e-3)
curve = []
for step in range(120):
    x = torch.randn(64, 30)
    loss = (net(x) - x.prod(1, keepdim=True)).abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    curve.append(loss.item())
    picture(curve[-50:], io.BytesIO())
    if step % 40 == 39:
        print(step + 1, f"{loss.item():.4f}", "open:", len(plt.fignums()))
