import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)
_CROPS = {}


def cached_crop(images, index, top, left, flip, size=24):
    key = (index, top, left, flip)
    if key not in _CROPS:
        crop = images[index, :, top : top + size, left : left + size]
        crop = crop.flip(-1) if flip else crop
        _CROPS[key] = (crop - crop.mean()) / (crop.std() + 1e-5)  # LEAK
    return _CROPS[key]


class Augmented(Dataset):
    def __init__(self, n=120):
        self.images = torch.rand(n, 3, 40, 40)
        self.labels = torch.randint(0, 3, (n,))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        top, left = torch.randint(0, 16, (2,)).tolist()
        return cached_crop(self.images, i, top, left, bool(torch.rand(()) < 0.5)), self.labels[i]


net = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3),
)
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
loader = DataLoader(Augmented(), batch_size=12, shuffle=True)
for epoch in range(10):
    for x, y in loader:
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("epoch", epoch, loss.item(), "cached crops", len(_CROPS))
