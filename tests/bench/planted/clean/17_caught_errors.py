import torch
from torch import nn


class Bad(ValueError):
    pass


def forward(model, x):
    h = model[0](x)
    if not torch.isfinite(h).all():
        raise Bad("inf in layer 0")
    return model[1:](h)


torch.set_num_threads(1)
torch.manual_seed(16)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
opt = torch.optim.SGD(model.parameters(), lr=0.01)
skipped = []
last_error = None
for step in range(100):
    x = torch.randn(96, 64)
    if step % 4 == 3:
        x[0, 0] = float("nan")
    try:
        loss = (forward(model, x) - x).pow(2).mean()
    except Bad as e:
        skipped.append((step, str(e)))
        last_error = e.with_traceback(None)
        continue
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item(), len(skipped), last_error)
