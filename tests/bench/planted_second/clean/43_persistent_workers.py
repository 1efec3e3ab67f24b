import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)


class Shapes(Dataset):
    def __init__(self, n=96):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        x = torch.zeros(1, 32, 32)
        size = 4 + int(torch.randint(0, 12, (1,), generator=g))
        label = i % 2
        if label:
            x[0, 8 : 8 + size, 8 : 8 + size] = 1
        else:
            x[0, 8, 8 : 8 + size] = 1
        return x + 0.1 * torch.randn(1, 32, 32, generator=g), label


def main():
    torch.set_num_threads(1)
    loader = DataLoader(Shapes(), batch_size=12, shuffle=True, num_workers=1, persistent_workers=True, prefetch_factor=2)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 2))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(8):
        right = 0
        for x, y in loader:
            out = net(x)
            loss = nn.functional.cross_entropy(out, y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            right += (out.argmax(1) == y).sum().item()
        print(epoch, loss.item(), right / 96)


if __name__ == "__main__":
    main()
