import collections
import queue
import threading

import torch
from torch import nn


class Writer(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.inbox = queue.Queue(maxsize=4)
        self.lines = collections.deque(maxlen=20)
        self.count = 0

    def run(self):
        while (item := self.inbox.get()) is not None:
            step, name, value = item
            self.lines.append(f"{step}\t{name}\t{float(value.mean()):.4f}\t{tuple(value.shape)}")
            self.count += 1
            del item, value

    def add(self, step, name, value):
        self.inbox.put((step, name, value))


def run():
    torch.manual_seed(104)
    torch.set_num_threads(1)
    ae = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 256))
    opt = torch.optim.Adam(ae.parameters(), 1e-3)
    writer = Writer()
    writer.start()
    for step in range(200):
        img = torch.rand(64, 1, 16, 16)
        rec = ae(img)
        loss = (rec - img.flatten(1)).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        writer.add(step, "loss", loss.detach())
        if step % 2 == 0:
            writer.add(step, "recon", rec.detach())
    writer.inbox.put(None)
    writer.join()
    print(writer.count, writer.lines[-1])


run()
