import torch
from torch import nn

torch.manual_seed(116)
torch.set_num_threads(1)


class CAM:
    def __init__(self, layer):
        self.layer = layer

    def __enter__(self):
        self.handles = [
            self.layer.register_forward_hook(lambda m, a, out: setattr(self, "act", out.detach())),
            self.layer.register_full_backward_hook(lambda m, gi, go: setattr(self, "grad", go[0].detach())),
        ]
        return self

    def heat(self):
        return torch.relu((self.grad.mean((2, 3), keepdim=True) * self.act).sum(1))

    def __exit__(self, *exc):
        for h in self.handles:
            h.remove()
        self.act = self.grad = None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU())
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        return self.fc(self.block(self.stem(x)).mean((2, 3)))


net = Net()
opt = torch.optim.AdamW(net.parameters(), 2e-3)
for step in range(40):
    y = torch.randint(5, (16,))
    x = torch.randn(16, 1, 32, 32) + y.view(-1, 1, 1, 1) * 0.3
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    with CAM(net.block) as cam:
        net(x).gather(1, y[:, None]).sum().backward()
        mean = cam.heat().mean().item()
    net.zero_grad()
    if step % 10 == 0:
        print(step, loss.item(), mean)
