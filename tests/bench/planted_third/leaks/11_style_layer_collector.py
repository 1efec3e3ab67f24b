import collections

import torch
from torch import nn

torch.manual_seed(6)
torch.set_num_threads(1)


class SaliencyStudy:
    """Trains a small classifier and looks at where its gradients go."""

    def __init__(self, classes=6):
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(24, classes),
        )
        self.opt = torch.optim.RMSprop(self.net.parameters(), lr=5e-4)
        self.flow = collections.defaultdict(list)
        for name, m in self.net.named_children():
            if isinstance(m, nn.Conv2d):
                m.register_full_backward_hook(self._recorder(name))

    def _recorder(self, name):
        store = self.flow[name]

        def hook(module, grad_in, grad_out):
            store.extend(g.detach() for g in grad_out if g is not None)

        return hook

    def step(self, x, y):
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()

    def picture(self):
        return {k: v[-1].abs().sum(1).mean(0) for k, v in self.flow.items()}


study = SaliencyStudy()
for i in range(120):
    y = torch.randint(0, 6, (12,))
    x = torch.randn(12, 1, 26, 26) + y.view(-1, 1, 1, 1) * 0.2
    loss = study.step(x, y)
    if i % 40 == 39:
        print(i, round(loss, 3), {k: tuple(v.shape) for k, v in study.picture().items()})
