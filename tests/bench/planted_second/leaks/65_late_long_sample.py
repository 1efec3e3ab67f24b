import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

torch.manual_seed(0)
torch.set_num_threads(1)


class Speech(torch.utils.data.Dataset):
    """features of utterances; 20 frames a second, all lengths are allowed"""

    def __init__(self, n=240):
        g = torch.Generator().manual_seed(5)
        self.frames = torch.randint(20, 60, (n,), generator=g).tolist()
        self.frames[n - 37] = 900  # an unsegmented recording
        self.g = g

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, i):
        return torch.randn(self.frames[i], 40), i % 7


def collate(rows):
    xs, ys = zip(*rows)
    return pad_sequence(xs, batch_first=True), torch.tensor(ys)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(40, 96, 3, padding=1), nn.GELU(), nn.Conv1d(96, 96, 3, padding=1), nn.GELU())
        self.ff = nn.Sequential(nn.Linear(96, 192), nn.GELU(), nn.Linear(192, 96), nn.LayerNorm(96))
        self.head = nn.Linear(96, 7)

    def forward(self, x):
        h = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.head((h + self.ff(h)).mean(1))


model = Encoder()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = torch.utils.data.DataLoader(Speech(), batch_size=6, collate_fn=collate)
for step, (x, y) in enumerate(loader):
    loss = nn.functional.cross_entropy(model(x), y)  # LEAK
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, tuple(x.shape), loss.item())
