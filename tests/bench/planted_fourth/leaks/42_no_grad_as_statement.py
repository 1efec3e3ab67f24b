import torch
from torch import nn

torch.manual_seed(51)
torch.set_num_threads(1)


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class Seg(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(block(3, 12), block(12, 12), block(12, 12))
        self.classify = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        return self.classify(self.body(x))


def scenes(n, size=40):
    y = torch.randint(4, (n, size // 8, size // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    x = torch.randn(n, 3, size, size) * 0.4 + y[:, None] * 0.5
    return x, y


def validate(net, loader):
    net.eval()
    torch.no_grad()
    preds, truths = [], []
    for x, y in loader:
        preds.append(net(x).softmax(1)[:, 1])
        truths.append(y == 1)
    p, t = torch.cat(preds) > 0.5, torch.cat(truths)
    net.train()
    return ((p & t).sum() / (p | t).sum().clamp(min=1)).item()


net = Seg()
opt = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
val = [scenes(4) for _ in range(12)]
print("untrained", validate(net, val))
for epoch in range(3):
    for _ in range(12):
        x, y = scenes(4)
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item(), validate(net, val))
