import torch
import torch.nn as nn
import torch.nn.functional as F

CLASSES = 19


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 16, 4, stride=4)
        self.mid = nn.Conv2d(16, 32, 3, padding=1)
        self.cls = nn.Conv2d(32, CLASSES, 1)

    def forward(self, x):
        y = self.cls(F.relu(self.mid(F.relu(self.down(x)))))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear")


def miou(logits, target):
    pred = logits.argmax(1)
    ious = []
    for c in range(CLASSES):
        p, t = pred == c, target == c
        union = (p | t).sum().item()
        if union:
            ious.append((p & t).sum().item() / union)
    return sum(ious) / len(ious)


def evaluate(net, n=24):
    net.eval()
    all_logits, all_targets = [], []
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(n):
            x = torch.rand(2, 3, 64, 64, generator=g)
            all_logits.append(net(x))
            all_targets.append((x.mean(1) * CLASSES).long())
    net.train()
    return miou(torch.cat(all_logits), torch.cat(all_targets))


torch.manual_seed(0)
torch.set_num_threads(1)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for epoch in range(2):
    for _ in range(12):
        x = torch.rand(2, 3, 64, 64)
        loss = F.cross_entropy(net(x), (x.mean(1) * CLASSES).long())
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, round(loss.item(), 3), "mIoU", round(evaluate(net), 4))
