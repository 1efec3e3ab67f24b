import torch
from torch import nn

torch.manual_seed(117)
torch.set_num_threads(1)


class DeadUnits:
    def __init__(self, model):
        self.alive, self.seen = {}, 0
        for name, m in model.named_modules():
            if isinstance(m, nn.ReLU):
                m.register_forward_hook(self.make(name))

    def make(self, name):
        def hook(module, args, out):
            fired = (out.detach() > 0).sum(0)
            if name in self.alive:
                self.alive[name] += fired
            else:
                self.alive[name] = fired
        return hook

    def report(self):
        return {n: round((c == 0).float().mean().item(), 3) for n, c in self.alive.items()}


def mlp(width=320, depth=4):
    layers = [nn.Linear(30, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


model = mlp()
monitor = DeadUnits(model)
opt = torch.optim.SGD(model.parameters(), lr=3e-3, momentum=0.9)
for step in range(60):
    x = torch.randn(256, 30)
    loss = nn.functional.huber_loss(model(x), (x[:, :5] ** 2).sum(1, keepdim=True))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 19:
        print(step, loss.item(), monitor.report())
