import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

torch.manual_seed(122)
torch.set_num_threads(1)


def images(n=24):
    y = torch.randint(4, (n,))
    x = torch.randn(n, 3, 20, 20) + y.view(-1, 1, 1, 1) * 0.4
    return x, y


net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
)
opt = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
swa, swa_lr = None, None
for epoch in range(16):
    for _ in range(4):
        x, y = images()
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if epoch == 8:
        swa, swa_lr = AveragedModel(net), SWALR(opt, swa_lr=0.01)
    if epoch > 8:
        swa.update_parameters(net)
        swa_lr.step()
update_bn([images() for _ in range(5)], swa)
swa.eval()
with torch.no_grad():
    x, y = images(200)
    print(loss.item(), (swa(x).argmax(1) == y).float().mean().item())
