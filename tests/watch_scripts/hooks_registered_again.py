"""A monitor is made anew every other step, and its hook is never removed."""

import torch


class Monitor:
    def __init__(self, layer):
        self.seen = None
        layer.register_forward_hook(self.note)  # the mistake

    def note(self, module, inputs, output):
        if self.seen is None:
            self.seen = output.detach().clone()


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(40):
    if step % 2 == 0:
        Monitor(model[0])
    optimizer.zero_grad()
    model(torch.randn(32, 64)).mean().backward()
    optimizer.step()
