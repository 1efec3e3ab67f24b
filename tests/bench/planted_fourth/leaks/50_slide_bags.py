import torch
from torch import nn

torch.manual_seed(59)
torch.set_num_threads(1)


class GatedMIL(nn.Module):
    def __init__(self, d=64, h=192):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(d, h), nn.ReLU())
        self.v, self.u = nn.Linear(h, h), nn.Linear(h, h)
        self.w = nn.Linear(h, 1)
        self.out = nn.Linear(h, 2)

    def forward(self, bag):
        z = self.embed(bag)
        gate = torch.tanh(self.v(z)) * torch.sigmoid(self.u(z))
        a = torch.softmax(self.w(gate).squeeze(1), 0)
        return self.out(a @ z)


class Slides:
    def __init__(self, n, big):
        self.sizes = torch.randint(120, 200, (n,)).tolist()
        self.sizes[big] = 2600

    def __iter__(self):
        for size in self.sizes:
            label = size % 2
            bag = torch.randn(size, 64)
            bag[: size // 10] += label * 1.5
            yield bag, torch.tensor([label])


model = GatedMIL()
opt = torch.optim.Adam(model.parameters(), 5e-4)
slides = Slides(60, big=52)
for i, (bag, label) in enumerate(slides):
    loss = nn.functional.cross_entropy(model(bag)[None], label)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 15 == 0:
        print(i, len(bag), loss.item())
