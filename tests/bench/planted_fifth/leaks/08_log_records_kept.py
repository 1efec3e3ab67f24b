import logging

import torch
from torch import nn

torch.manual_seed(8)
torch.set_num_threads(1)
log = logging.getLogger("train")
log.setLevel(logging.DEBUG)
log.propagate = False


class ReportHandler(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def report(self, every=20):
        for record in self.records[::every]:
            print(record.getMessage()[:70].replace("\n", " "))


def spectrum(model):
    return torch.fft.rfft(model[0].weight.detach(), dim=1).abs()


handler = ReportHandler()
log.addHandler(handler)
model = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.Adam(model.parameters(), 1e-3)
for step in range(80):
    x = torch.randn(32, 256)
    y = x[:, :10].argmax(1)
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    log.debug("step %d loss %.3f spectrum %s", step, loss.item(), spectrum(model))
handler.report()
