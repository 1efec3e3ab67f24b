import torch
from torch import nn

torch.manual_seed(144)
torch.set_num_threads(1)


class Ramp:
    def __init__(self, start, end, steps):
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step):
        share = min(1.0, step / self.steps)
        return int(self.start + share * (self.end - self.start))


class Net(nn.Module):
    def __init__(self, features=40, width=192, classes=5):
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm1d(features), nn.Linear(features, width), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes),
        )

    def forward(self, x):
        return self.net(x)


model, size = Net(), Ramp(32, 640, 25)
opt = torch.optim.AdamW(model.parameters(), 1e-3)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, 5e-3, total_steps=80)
w, log = torch.randn(40, 5), []
for step in range(80):
    x = torch.randn(size(step), 40)
    loss = nn.functional.cross_entropy(model(x), (x @ w).argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    sched.step()
    log.append({"n": len(x), "loss": loss.item(), "lr": sched.get_last_lr()[0]})
print(log[0], log[-1])
