import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(118)
torch.set_num_threads(1)


class Views(Dataset):
    def __init__(self, n=320):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return torch.full((3, 20, 20), (index % 10) / 10) + 0.3 * torch.randn(3, 20, 20), index % 10


def endless(loader):
    while True:
        yield from loader


def main(max_steps=140):
    stream = endless(DataLoader(Views(), batch_size=16, shuffle=True))
    net = nn.Sequential(nn.Flatten(), nn.Linear(1200, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.Adam(net.parameters(), 1e-3)
    for step in range(max_steps):
        x, y = next(stream)
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 35 == 34:
            print(step, loss.item())


main()
