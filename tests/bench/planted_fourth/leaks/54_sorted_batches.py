import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

torch.manual_seed(63)
torch.set_num_threads(1)


class ByLength(Sampler):
    def __init__(self, lengths, batch_size):
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        self.batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for i in torch.randperm(len(self.batches)).tolist():
            yield self.batches[i]


def speech(n=240):
    lengths = (torch.rand(n) * 60 + 30).long()
    lengths[torch.randperm(n)[:8]] = 420
    return [torch.randn(t, 40) for t in lengths.tolist()]


def collate(rows):
    return pad_sequence(rows, batch_first=True), torch.tensor([len(r) for r in rows])


class Encoder(nn.Module):
    def __init__(self, h=96):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(40, h, 5, padding=2), nn.Conv1d(h, h, 5, padding=2), nn.Conv1d(h, h, 5, padding=2)])
        self.out = nn.Conv1d(h, 40, 1)

    def forward(self, x):
        h = x.transpose(1, 2)
        for layer in self.layers:
            h = torch.nn.functional.gelu(layer(h))
        return self.out(h).transpose(1, 2)


data = speech()
loader = DataLoader(data, batch_sampler=ByLength([len(d) for d in data], 8), collate_fn=collate)
model = Encoder()
opt = torch.optim.Adam(model.parameters(), 1e-3)
for i, (x, lengths) in enumerate(loader):
    masked = x * (torch.rand(x.shape[:2]) > 0.2)[..., None]
    loss = (model(masked) - x).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 10 == 0:
        print(i, tuple(x.shape), loss.item())
