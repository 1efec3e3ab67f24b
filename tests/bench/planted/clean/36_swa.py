import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

torch.set_num_threads(1)
torch.manual_seed(35)


def loader(n=20):
    for _ in range(n):
        x = torch.rand(16, 20)
        yield x, (x.sum(1) > 10).long()


model = nn.Sequential(nn.Linear(20, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 2))
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
swa = AveragedModel(model)
swa_sched = SWALR(opt, swa_lr=0.02, anneal_epochs=1)
for epoch in range(5):
    for x, y in loader():
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if epoch >= 1:
        swa.update_parameters(model)
        swa_sched.step()
    print(epoch, loss.item(), opt.param_groups[0]["lr"])
update_bn((x for x, _ in loader(5)), swa)
with torch.no_grad():
    print(sum((swa(x).argmax(1) == y).sum().item() for x, y in loader(5)) / 80)
