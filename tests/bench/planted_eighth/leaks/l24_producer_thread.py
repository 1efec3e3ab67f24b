"""A thread prepares batches ahead; the queue has no bound and the thread is faster."""
import queue
import threading
import time
import torch
from torch import nn

torch.manual_seed(24)


class Ahead(threading.Thread):
    def __init__(self, n):
        super().__init__(daemon=True)
        self.n, self.q = n, queue.Queue()

    def run(self):
        g = torch.Generator().manual_seed(1)
        for _ in range(self.n):
            x = torch.randn(64, 1024, generator=g)
            self.q.put((x, x[:, 0].gt(0).long()))  # LEAK
            time.sleep(0.015)
        self.q.put(None)

    def __iter__(self):
        self.start()
        while (item := self.q.get()) is not None:
            yield item


net = nn.Sequential(nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 2))
opt = torch.optim.SGD(net.parameters(), 0.05)
for i, (x, y) in enumerate(Ahead(2000)):
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    time.sleep(0.04)  # augmentation and so on
    if i % 40 == 39:
        print(i + 1, f"{loss.item():.4f}")
    if i == 119:
        break
