import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

random.seed(64)
torch.manual_seed(64)
torch.set_num_threads(1)
MAX = 512


def tokenize(text):
    ids = [sum(map(ord, word)) % 499 + 1 for word in text.split()][:MAX]
    return torch.tensor(ids + [0] * (MAX - len(ids)))


class Reviews(Dataset):
    def __init__(self, n):
        words = ["good", "bad", "fine", "awful", "the", "film", "plot", "was", "not"]
        self.rows = [" ".join(random.choices(words, k=random.randint(12, 40))) for _ in range(n)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        text = self.rows[i]
        return tokenize(text), float(text.count("good") > text.count("bad"))


class Classifier(nn.Module):
    def __init__(self, dim=128):
        super().__init__()
        self.emb = nn.Embedding(500, dim, padding_idx=0)
        self.conv1 = nn.Conv1d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, padding=1)
        self.out = nn.Linear(dim, 1)

    def forward(self, ids):
        h = self.emb(ids).transpose(1, 2)
        h = torch.relu(self.conv2(torch.relu(self.conv1(h))))
        return self.out(h.amax(-1)).squeeze(1)


model = Classifier()
opt = torch.optim.Adam(model.parameters(), 1e-3)
for step, (ids, y) in enumerate(DataLoader(Reviews(320), batch_size=8, shuffle=True)):
    loss = nn.functional.binary_cross_entropy_with_logits(model(ids), y.float())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, loss.item())
