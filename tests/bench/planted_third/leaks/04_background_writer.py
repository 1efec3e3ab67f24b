import queue
import threading

import torch
from torch import nn


class Writer(threading.Thread):
    """Writes summaries without stopping the training loop."""

    def __init__(self):
        super().__init__(daemon=True)
        self.inbox = queue.Queue(maxsize=8)
        self.written = []

    def run(self):
        while True:
            item = self.inbox.get()
            if item is None:
                return
            step, name, value = item
            self._emit(step, name, value)
            self.inbox.task_done()

    def _emit(self, step, name, value):
        line = f"{step}\t{name}\t{float(value.float().mean()):.4f}"
        self.written.append((line, item_key(step, name), value))

    def add(self, step, name, value):
        self.inbox.put((step, name, value))


def item_key(step, name):
    return f"{name}/{step:06d}"


def run():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ae = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 256))
    opt = torch.optim.Adam(ae.parameters(), lr=1e-3)
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
    print(writer.written[-1][0], len(writer.written))


run()
