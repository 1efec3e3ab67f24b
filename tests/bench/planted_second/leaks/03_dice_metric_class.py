import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(11)


class SoftDice:
    def __init__(self, eps=1e-6):
        self.eps = eps
        self.inter = []
        self.union = []

    def __call__(self, logits, mask):
        prob = torch.sigmoid(logits)
        self.inter.append((prob * mask).sum(dim=(1, 2, 3)))  # LEAK
        self.union.append(prob.sum(dim=(1, 2, 3)) + mask.sum(dim=(1, 2, 3)))

    def value(self):
        inter = torch.cat(self.inter)
        union = torch.cat(self.union)
        return (2 * inter / (union + self.eps)).mean()


def block(cin, cout):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU())


class MiniUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.d1, self.d2 = block(1, 8), block(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(nn.functional.max_pool2d(a, 2))
        return self.head(torch.cat([a, self.up(b)], dim=1))


net = MiniUNet()
opt = torch.optim.Adam(net.parameters(), 1e-3)
bce = nn.BCEWithLogitsLoss()
dice = SoftDice()

for epoch in range(4):
    net.train()
    for _ in range(20):
        img = torch.randn(8, 1, 32, 32)
        mask = (img > 0.3).float()
        logits = net(img)
        loss = bce(logits, mask)
        opt.zero_grad()
        loss.backward()
        opt.step()
        dice(logits, mask)
    print(f"epoch {epoch} loss {loss.item():.3f} dice {dice.value().item():.3f}")
