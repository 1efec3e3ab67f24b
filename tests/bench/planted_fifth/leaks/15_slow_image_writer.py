import queue
import threading
import time

import torch
from torch import nn

torch.manual_seed(15)
torch.set_num_threads(1)


class Writer(threading.Thread):
    def __init__(self, pause=0.05):
        super().__init__(daemon=True)
        self.jobs = queue.Queue()
        self.pause, self.written = pause, 0

    def add_images(self, tag, images):
        self.jobs.put((tag, images))

    def run(self):
        while True:
            _, images = self.jobs.get()
            images.mul(255).byte().numpy().tobytes()
            time.sleep(self.pause)
            self.written += 1


def autoencoder():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1), nn.Sigmoid()
    )


writer = Writer()
writer.start()
net = autoencoder()
opt = torch.optim.Adam(net.parameters(), 3e-3)
for step in range(150):
    x = torch.rand(12, 1, 28, 28).round()
    out = net(x)
    loss = nn.functional.binary_cross_entropy(out, x)
    opt.zero_grad()
    loss.backward()
    opt.step()
    writer.add_images(f"rec/{step}", torch.cat([x, out.detach()], 3))
    if step % 50 == 0:
        print(step, loss.item(), "written", writer.written)
