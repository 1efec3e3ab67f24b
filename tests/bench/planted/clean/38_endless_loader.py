import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noise(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        img = torch.rand(3, 32, 32, generator=g)
        return img + 0.1 * torch.randn(3, 32, 32), i % 5


def forever(dl):
    epoch = 0
    while True:
        for batch in dl:
            yield epoch, batch
        epoch += 1


torch.set_num_threads(1)
torch.manual_seed(37)
stream = forever(DataLoader(Noise(64), batch_size=8, shuffle=True))
net = nn.Sequential(nn.Conv2d(3, 12, 5, 2), nn.ReLU(), nn.Conv2d(12, 12, 5, 2), nn.ReLU(), nn.Flatten(),
                    nn.Linear(300, 5))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for step in range(80):
    epoch, (x, y) = next(stream)
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, epoch, loss.item())
