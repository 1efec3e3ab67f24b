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


@torch.no_grad()
def evaluate(net, n=24):
    net.eval()
    cm = torch.zeros(CLASSES, CLASSES, dtype=torch.long)
    g = torch.Generator().manual_seed(1)
    for _ in range(n):
        x = torch.rand(2, 3, 64, 64, generator=g)
        t = (x.mean(1) * CLASSES).long()
        p = net(x).argmax(1)
        cm += torch.bincount(t.flatten() * CLASSES + p.flatten(), minlength=CLASSES**2).view(CLASSES, CLASSES)
    net.train()
    inter = cm.diag().float()
    union = (cm.sum(0) + cm.sum(1)).float() - inter
    return (inter / union.clamp(min=1)).mean().item()


torch.manual_seed(117)
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
