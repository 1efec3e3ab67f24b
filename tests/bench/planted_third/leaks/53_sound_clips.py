import torch
import torch.nn as nn

torch.manual_seed(53)
torch.set_num_threads(1)
MAX_FRAMES = 1000
MELS = 32


class Clips(torch.utils.data.Dataset):
    def __init__(self, n):
        g = torch.Generator().manual_seed(3)
        self.lengths = torch.randint(60, 120, (n,), generator=g).tolist()

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        return torch.randn(self.lengths[i], MELS, generator=g), i % 4


def to_canvas(items):
    x = torch.zeros(len(items), MAX_FRAMES, MELS)
    mask = torch.zeros(len(items), MAX_FRAMES)
    for row, (clip, _) in enumerate(items):
        x[row, : len(clip)] = clip
        mask[row, : len(clip)] = 1
    return x, mask, torch.tensor([label for _, label in items])


class Sounds(nn.Module):
    def __init__(self, width=160):
        super().__init__()
        self.a = nn.Conv1d(MELS, width, 5, padding=2)
        self.b = nn.Conv1d(width, width, 5, padding=2)
        self.c = nn.Linear(width, 4)

    def forward(self, x, mask):
        h = self.b(torch.relu(self.a(x.transpose(1, 2)))).relu() * mask[:, None]
        return self.c(h.sum(2) / mask.sum(1, keepdim=True))


loader = torch.utils.data.DataLoader(Clips(96), batch_size=8, shuffle=True, collate_fn=to_canvas)
model = Sounds()
opt = torch.optim.Adam(model.parameters(), 1e-3)
for i, (x, mask, y) in enumerate(loader):
    loss = nn.functional.cross_entropy(model(x, mask), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 4 == 0:
        print(i, round(loss.item(), 3), round(mask.mean().item(), 3))
