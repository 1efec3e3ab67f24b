import torch
from torch import nn


class DeadUnits:
    def __init__(self, model):
        self.masks = {}
        self.handles = [
            m.register_forward_hook(self._hook(name)) for name, m in model.named_modules() if isinstance(m, nn.ReLU)
        ]

    def _hook(self, name):
        store = self.masks.setdefault(name, [])

        def hook(module, args, output):
            store.append(output > 0)

        return hook

    def summary(self):
        return {n: 1 - torch.cat(ms).float().amax(0).mean().item() for n, ms in self.masks.items()}


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)
        self.act = nn.ReLU()

    def forward(self, x):
        return x + self.b(self.act(self.a(x)))


def build(width=320, depth=3):
    return nn.Sequential(nn.Linear(30, width), *[Residual(width) for _ in range(depth)], nn.Linear(width, 1))


def main():
    torch.manual_seed(19)
    torch.set_num_threads(1)
    model = build()
    monitor = DeadUnits(model)
    opt = torch.optim.SGD(model.parameters(), lr=3e-3, momentum=0.9)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 60)
    for step in range(60):
        x = torch.randn(256, 30)
        y = (x[:, :5] ** 2).sum(1, keepdim=True)
        loss = nn.functional.huber_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
        if step % 20 == 19:
            print(step, loss.item(), monitor.summary())
    for h in monitor.handles:
        h.remove()


main()
