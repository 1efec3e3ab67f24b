from dataclasses import dataclass, field

import torch
from torch import nn

torch.manual_seed(146)
torch.set_num_threads(1)
CLASSES = 5


@dataclass
class EpochState:
    matrix: torch.Tensor = field(default_factory=lambda: torch.zeros(CLASSES, CLASSES, dtype=torch.long))
    loss: float = 0.0

    def add(self, logits, mask, loss):
        index = CLASSES * mask.flatten() + logits.argmax(1).flatten()
        self.matrix += torch.bincount(index, minlength=CLASSES**2).view(CLASSES, CLASSES)
        self.loss += loss


net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, CLASSES, 3, padding=1))
opt = torch.optim.Adam(net.parameters(), 5e-3)
for epoch in range(4):
    state = EpochState()
    for _ in range(22):
        mask = torch.randint(CLASSES, (6, 4, 4)).repeat_interleave(7, 1).repeat_interleave(7, 2)
        logits = net(mask[:, None] / CLASSES + 0.1 * torch.randn(6, 1, 28, 28))
        loss = nn.functional.cross_entropy(logits, mask)
        opt.zero_grad()
        loss.backward()
        opt.step()
        state.add(logits.detach(), mask, loss.item())
    print(epoch, state.loss / 22, (state.matrix.diagonal().sum() / state.matrix.sum()).item())
