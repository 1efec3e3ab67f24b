import logging
from collections import deque

import torch
from torch import nn

torch.manual_seed(108)
torch.set_num_threads(1)
log = logging.getLogger("clean-train")
log.setLevel(logging.DEBUG)
log.propagate = False


class TailHandler(logging.Handler):
    def __init__(self, lines=20):
        super().__init__()
        self.tail = deque(maxlen=lines)

    def emit(self, record):
        self.tail.append(self.format(record)[:200])


handler = TailHandler()
log.addHandler(handler)
model = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.Adam(model.parameters(), 1e-3)
for step in range(80):
    x = torch.randn(32, 256)
    loss = nn.functional.cross_entropy(model(x), x[:, :10].argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    log.debug("step %d loss %.3f norm %s", step, loss.item(), model[0].weight.detach().norm())
print(handler.tail[0], handler.tail[-1])
