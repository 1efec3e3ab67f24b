import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

torch.manual_seed(154)
torch.set_num_threads(1)


def batches(lengths, frames):
    batch, out = [], []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > frames:
            out.append(batch)
            batch = []
        batch.append(i)
    return out + [batch]


class Encoder(nn.Module):
    def __init__(self, h=96):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(40, h, 5, padding=2), nn.Conv1d(h, h, 5, padding=2)])
        self.out = nn.Conv1d(h, 40, 1)

    def forward(self, x):
        h = x.transpose(1, 2)
        for layer in self.layers:
            h = torch.nn.functional.gelu(layer(h))
        return self.out(h).transpose(1, 2)


lengths = (torch.rand(240) * 60 + 30).long().tolist()
for i in range(8):
    lengths[i * 29] = 400
data = [torch.randn(t, 40) for t in lengths]
order = batches(lengths, 800)
order = [order[i] for i in torch.randperm(len(order)).tolist()]
loader = DataLoader(data, batch_sampler=order, collate_fn=lambda rows: pad_sequence(rows, batch_first=True))
model = Encoder()
opt = torch.optim.Adam(model.parameters(), 1e-3)
for i, x in enumerate(loader):
    masked = x * (torch.rand(x.shape[:2]) > 0.2)[..., None]
    loss = (model(masked) - x).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 10 == 0:
        print(i, tuple(x.shape), loss.item())
