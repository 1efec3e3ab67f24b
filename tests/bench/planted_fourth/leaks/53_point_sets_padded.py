import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(62)
torch.set_num_threads(1)


class Events(Dataset):
    """Detector hits (x, y, z, energy); few events are large."""

    def __init__(self, n=240):
        sizes = torch.randint(20, 50, (n,))
        self.events = [torch.randn(s, 4) for s in sizes.tolist()]
        self.events[0] = torch.randn(480, 4)
        self.limit = max(len(e) for e in self.events)

    def __len__(self):
        return len(self.events)

    def __getitem__(self, i):
        hits = self.events[i]
        padded = torch.zeros(self.limit, 4)
        padded[: len(hits)] = hits
        mask = torch.arange(self.limit) < len(hits)
        return padded, mask, hits[:, 3].sum()


class DeepSets(nn.Module):
    def __init__(self, h=192):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(4, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, h))
        self.rho = nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 1))

    def forward(self, x, mask):
        h = self.phi(x) * mask[..., None]
        return self.rho(h.sum(1)).squeeze(1)


model = DeepSets()
opt = torch.optim.Adam(model.parameters(), 1e-3)
loader = DataLoader(Events(), batch_size=8, shuffle=True)
for epoch in range(2):
    for x, mask, energy in loader:
        loss = nn.functional.smooth_l1_loss(model(x, mask), energy)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item())
