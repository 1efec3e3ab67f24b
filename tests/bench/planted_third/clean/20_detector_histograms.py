from itertools import islice

import torch
from torch import nn

torch.manual_seed(120)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Anchors(nn.Module):
    def __init__(self, out=72):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.scores = nn.Conv2d(32, out, 1)

    def forward(self, x):
        return self.scores(self.trunk(x))


def images():
    g = torch.Generator().manual_seed(0)
    while True:
        x = torch.rand(4, 3, 64, 64, generator=g)
        yield x, (torch.rand(4, 72, 16, 16, generator=g) < x.mean()).float()


model = Anchors().to(device)
opt = torch.optim.Adam(model.parameters(), 1e-3)
for x, y in islice(images(), 30):
    loss = nn.functional.binary_cross_entropy_with_logits(model(x.to(device)), y.to(device))
    opt.zero_grad()
    loss.backward()
    opt.step()
print("loss", loss.item())

pos, neg = torch.zeros(40), torch.zeros(40)
model.eval()
with torch.inference_mode():
    for x, y in islice(images(), 60):
        s = model(x.to(device)).clamp(-2, 1.999).cpu()
        pos += torch.histc(s[y > 0.5], 40, -2, 2)
        neg += torch.histc(s[y <= 0.5], 40, -2, 2)
tpr = pos.flip(0).cumsum(0) / pos.sum()
fpr = neg.flip(0).cumsum(0) / neg.sum()
print("auc", torch.trapezoid(tpr, fpr).item())
