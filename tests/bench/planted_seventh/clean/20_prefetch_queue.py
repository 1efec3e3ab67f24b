"""A producer thread prepares batches and hands them over through a queue of fixed size."""

import queue
import threading

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Prefetcher:
    def __init__(self, make, steps, depth=3):
        self.make, self.steps = make, steps
        self.queue = queue.Queue(maxsize=depth)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        for i in range(self.steps):
            self.queue.put(self.make(i))
        self.queue.put(None)

    def __iter__(self):
        while (item := self.queue.get()) is not None:
            yield item
        self.thread.join()


def make_batch(i):
    gen = torch.Generator().manual_seed(i)
    wave = torch.randn(8, 1, 2048, generator=gen)
    label = torch.randint(4, (8,), generator=gen)
    return wave + label[:, None, None] * 0.2, label


class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(1, 16, 32, stride=16)
        self.conv2 = nn.Conv1d(16, 32, 8, stride=4)
        self.fc = nn.Linear(32, 4)

    def forward(self, x):
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean(2))


torch.manual_seed(0)
model = WaveNet().to(device)
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
correct = seen = 0
for step, (wave, label) in enumerate(Prefetcher(make_batch, steps=60)):
    logits = model(wave.to(device))
    loss = F.cross_entropy(logits, label.to(device))
    opt.zero_grad()
    loss.backward()
    opt.step()
    correct += (logits.argmax(1) == label.to(device)).sum().item()
    seen += len(label)
    if step % 20 == 19:
        print(f"step {step} loss {loss.item():.4f} accuracy {correct / seen:.3f}")
        correct = seen = 0
