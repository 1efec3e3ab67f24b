import heapq
import itertools

import torch
from torch import nn

torch.manual_seed(146)
torch.set_num_threads(1)


class Hardest:
    def __init__(self, size=48):
        self.size, self.heap, self.tick = size, [], itertools.count()

    def offer(self, images, scores):
        for score, image in zip(scores.tolist(), images):
            entry = (score, next(self.tick), image.clone())
            if len(self.heap) < self.size:
                heapq.heappush(self.heap, entry)
            else:
                heapq.heappushpop(self.heap, entry)

    def batch(self):
        return torch.stack([image for _, _, image in self.heap])


net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
)
opt = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
hard = Hardest()
for step in range(60):
    images = torch.rand(24, 3, 32, 32)
    labels = (images.mean((1, 2, 3)) * 400).long() % 4
    losses = nn.functional.cross_entropy(net(images), labels, reduction="none")
    opt.zero_grad()
    losses.mean().backward()
    opt.step()
    hard.offer(images, losses.detach())
print(hard.batch().shape, max(hard.heap)[0])
