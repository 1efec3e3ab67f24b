import queue
import threading
import time

import torch
from torch import nn

torch.manual_seed(115)
torch.set_num_threads(1)


class Writer(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.jobs, self.written, self.dropped = queue.Queue(maxsize=4), 0, 0

    def add(self, images):
        try:
            self.jobs.put_nowait(images)
        except queue.Full:
            self.dropped += 1

    def run(self):
        while True:
            self.jobs.get().mul(255).byte().numpy().tobytes()
            time.sleep(0.02)
            self.written += 1


writer = Writer()
writer.start()
net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1))
opt = torch.optim.Adam(net.parameters(), 3e-3)
for step in range(150):
    x = torch.rand(12, 1, 28, 28).round()
    out = net(x)
    loss = nn.functional.mse_loss(out, x)
    opt.zero_grad()
    loss.backward()
    opt.step()
    writer.add(out.detach())
    if step % 50 == 0:
        print(step, loss.item(), writer.written, writer.dropped)
