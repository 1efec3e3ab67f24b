"""A monitor is made anew every other step, and its hook is removed with it."""

import torch


class Monitor:
    def __init__(self, layer):
        self.seen = None
        self.handle = layer.register_forward_hook(self.note)

    def note(self, module, inputs, output):
        self.seen = output.detach().clone()


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(24):
    monitor = Monitor(model[0])
    optimizer.zero_grad()
    model(torch.randn(32, 64)).mean().backward()
    optimizer.step()
    monitor.handle.remove()
