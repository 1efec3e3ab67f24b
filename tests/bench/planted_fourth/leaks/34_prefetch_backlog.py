import queue
import threading

import numpy as np
import torch
from torch import nn

torch.manual_seed(35)
torch.set_num_threads(1)


class Augmenter(threading.Thread):
    def __init__(self, seed):
        super().__init__(daemon=True)
        self.rng = np.random.default_rng(seed)
        self.asked = queue.Queue()
        self.ready = queue.Queue()

    def run(self):
        while True:
            n = self.asked.get()
            if n is None:
                return
            base = self.rng.normal(size=(n, 48, 48)).astype(np.float32)
            for k in range(3):
                self.ready.put((np.rot90(base, k, axes=(1, 2)).copy(), k))

    def next(self, n):
        self.asked.put(n)
        return self.ready.get()


model = nn.Sequential(
    nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
    nn.Flatten(), nn.LazyLinear(3),
)
model(torch.zeros(1, 1, 48, 48))
opt = torch.optim.Adam(model.parameters(), 1e-3)
feeder = Augmenter(35)
feeder.start()
right = 0
for step in range(80):
    images, k = feeder.next(16)
    logits = model(torch.from_numpy(images)[:, None])
    target = torch.full((16,), k)
    loss = nn.functional.cross_entropy(logits, target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    right += (logits.argmax(1) == target).sum().item()
    if step % 20 == 19:
        print(step, loss.item(), right / (16 * (step + 1)))
feeder.asked.put(None)
feeder.join()
