import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

torch.manual_seed(0)
torch.set_num_threads(1)

loader = [(torch.randn(32, 20), None) for _ in range(16)]
loader = [(x, x[:, :4].argmax(1)) for x, _ in loader]
model = nn.Sequential(nn.Linear(20, 80), nn.BatchNorm1d(80), nn.ReLU(), nn.Linear(80, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
swa_model = AveragedModel(model)
swa_scheduler = SWALR(optimizer, swa_lr=0.05)
SWA_START = 3

for epoch in range(9):
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    if epoch > SWA_START:
        swa_model.update_parameters(model)
        swa_scheduler.step()
    else:
        scheduler.step()
    print(epoch, loss.item(), int(swa_model.n_averaged))
update_bn(loader, swa_model)
with torch.no_grad():
    print("swa", sum(nn.functional.cross_entropy(swa_model(x), y).item() for x, y in loader) / len(loader))
