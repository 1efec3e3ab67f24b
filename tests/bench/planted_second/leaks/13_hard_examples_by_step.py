import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(21)


class HardExampleMiner:
    def __init__(self, keep_fraction=0.25):
        self.keep = keep_fraction
        self.table = {}

    def observe(self, step, inputs, losses):
        k = int(len(losses) * self.keep)
        worst = losses.topk(k).indices
        self.table[step] = (inputs[worst].clone(), losses[worst].clone())  # LEAK

    def replay(self, step):
        return self.table[step - 1][0] if step - 1 in self.table else None


N_CLASS = 5
net = nn.Sequential(
    nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    nn.Flatten(), nn.Linear(24, N_CLASS),
)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
ce = nn.CrossEntropyLoss(reduction="none")
miner = HardExampleMiner()

for step in range(100):
    images = torch.randn(24, 3, 32, 32)
    hard = miner.replay(step)
    if hard is not None:
        images = torch.cat([images[: 24 - len(hard)], hard])
    target = (images.mean(dim=(1, 2, 3)) * 50).long().clamp(0, N_CLASS - 1)
    per_sample = ce(net(images), target)
    optimizer.zero_grad()
    per_sample.mean().backward()
    optimizer.step()
    with torch.no_grad():
        miner.observe(step, images, per_sample)
    if step % 25 == 24:
        print(step, per_sample.mean().item())
