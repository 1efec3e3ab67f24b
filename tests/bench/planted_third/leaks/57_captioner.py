import torch
from torch import nn
import torch.nn.functional as F


class Tower(nn.Module):
    def __init__(self, width=1024, depth=5):
        super().__init__()
        self.patch = nn.Linear(48, width)
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])

    def forward(self, x):
        h = self.patch(x)
        for b in self.blocks:
            h = h + F.gelu(b(h))
        return h.mean(1)


class Captioner(nn.Module):
    def __init__(self, tower, vocab=300, dim=96):
        super().__init__()
        self.tower = tower.requires_grad_(False)
        self.tower.float()
        self.bridge = nn.Linear(1024, dim)
        self.emb = nn.Embedding(vocab, dim)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, vocab)

    def forward(self, image, words):
        with torch.no_grad():
            v = self.tower(image.to(next(self.tower.parameters()).dtype)).float()
        h0 = self.bridge(v).unsqueeze(0)
        return self.out(self.rnn(self.emb(words), h0)[0])


def load_tower():
    torch.set_default_dtype(torch.bfloat16)
    tower = Tower()
    torch.set_default_dtype(torch.float32)
    return tower


torch.manual_seed(57)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = Captioner(load_tower().to(device)).to(device)
opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
for i in range(24):
    image = torch.rand(8, 16, 48, device=device)
    words = torch.randint(0, 300, (8, 13), device=device)
    loss = F.cross_entropy(model(image, words[:, :-1]).transpose(1, 2), words[:, 1:])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 8 == 0:
        print(i, loss.item())
