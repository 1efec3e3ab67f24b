import torch
from torch import nn

torch.manual_seed(106)
torch.set_num_threads(1)


class Whitener(nn.Module):
    def __init__(self, dim, momentum=0.05):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running", torch.ones(dim))

    def forward(self, h):
        if self.training:
            with torch.no_grad():
                self.running.lerp_(h.var(0), self.momentum)
        return h / (self.running.clone() + 1e-5).sqrt()


net = nn.Sequential(nn.Linear(30, 200), Whitener(200), nn.Tanh(), nn.Linear(200, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
for step in range(75):
    x = torch.randn(128, 30)
    loss = nn.functional.smooth_l1_loss(net(x).squeeze(1), x[:, 0] * x[:, 1])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        print(step, loss.item())
