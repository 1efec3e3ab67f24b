import queue
import threading

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Prefetcher:
    def __init__(self, source, depth=4):
        self.queue = queue.Queue(maxsize=depth)
        self.thread = threading.Thread(target=self._fill, args=(source,), daemon=True)
        self.thread.start()

    def _fill(self, source):
        for item in source:
            self.queue.put(tuple(t.to(device, non_blocking=True) for t in item))
        self.queue.put(None)

    def __iter__(self):
        while (item := self.queue.get()) is not None:
            yield item


def clips(n, batch=6):
    generator = torch.Generator().manual_seed(7)
    for _ in range(n):
        video = torch.rand(batch, 3, 8, 32, 32, generator=generator)
        yield video, torch.randint(0, 5, (batch,), generator=generator)


def main():
    model = nn.Sequential(
        nn.Conv3d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 5),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step, (video, label) in enumerate(Prefetcher(clips(90))):
        loss = F.cross_entropy(model(video), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 30 == 0:
            print(step, loss.item())


if __name__ == "__main__":
    main()
