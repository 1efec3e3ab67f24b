import torch
from torch import nn
import torch.nn.functional as F


class UNetish(nn.Module):
    def __init__(self):
        super().__init__()
        self.d = nn.Conv2d(1, 12, 3, stride=2, padding=1)
        self.u = nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1)
        self.o = nn.Conv2d(9, 4, 1)

    def forward(self, x):
        h = F.relu(self.u(F.relu(self.d(x))))
        return self.o(torch.cat([h, x], 1))


def loader(epoch, n=40):
    g = torch.Generator().manual_seed(100 + epoch)
    for _ in range(n):
        img = torch.rand(4, 1, 32, 32, generator=g)
        yield img, (img[:, 0] * 4).long().clamp(max=3)


def epoch_score(outputs):
    inter = sum((o["pred"].argmax(1) == o["mask"]).sum().item() for o in outputs)
    return inter / sum(o["mask"].numel() for o in outputs)


torch.set_num_threads(1)
torch.manual_seed(12)
net = UNetish()
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(3):
    outputs = []
    for img, mask in loader(epoch):
        logits = net(img)
        loss = F.cross_entropy(logits, mask)
        opt.zero_grad()
        loss.backward()
        opt.step()
        outputs.append({"loss": loss.item(), "pred": logits.detach(), "mask": mask})  # LEAK
    print(epoch, sum(o["loss"] for o in outputs) / len(outputs), epoch_score(outputs))
