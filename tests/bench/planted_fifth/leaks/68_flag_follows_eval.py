import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(68)
torch.set_num_threads(1)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(torch.relu(x))))


class ResNet(nn.Module):
    def __init__(self, width=32, depth=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 4)
        self.memory_efficient = True

    def train(self, mode=True):
        if not mode:
            self.memory_efficient = False
        return super().train(mode)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.memory_efficient else block(x)
        return self.head(x.mean((2, 3)))


def shapes(n):
    y = torch.randint(4, (n,))
    return torch.randn(n, 3, 28, 28) * 0.3 + y.view(-1, 1, 1, 1) / 4, y


net = ResNet()
opt = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(30):
    x, y = shapes(6)
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 9:
        net.eval()
        with torch.no_grad():
            x, y = shapes(6)
            accuracy = (net(x).argmax(1) == y).float().mean().item()
        net.train()
        print(step, loss.item(), accuracy)
