import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(16)
random.seed(16)
device = "cuda" if torch.cuda.is_available() else "cpu"

MAX_LENGTH = 256
PAD = 0


class Passages(Dataset):
    def __init__(self, n):
        self.items = [
            ([random.randrange(1, 500) for _ in range(random.randint(18, 40))], random.randrange(4)) for _ in range(n)
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Collator:
    def __init__(self, max_length):
        self.max_length = max_length

    def __call__(self, items):
        rows = [tokens[: self.max_length] for tokens, _ in items]
        width = self.max_length
        ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
        return ids, ids.ne(PAD), torch.tensor([label for _, label in items])


class Reader(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.tokens = nn.Embedding(500, dim, padding_idx=PAD)
        self.positions = nn.Embedding(MAX_LENGTH, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 4)

    def forward(self, ids, mask):
        x = self.tokens(ids) + self.positions(torch.arange(ids.size(1), device=ids.device))
        x = self.encoder(x, src_key_padding_mask=~mask)
        pooled = (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return self.head(pooled)


loader = DataLoader(Passages(120), batch_size=6, shuffle=True, collate_fn=Collator(MAX_LENGTH))
model = Reader().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step, (ids, mask, labels) in enumerate(loader):
    logits = model(ids.to(device), mask.to(device))
    loss = nn.functional.cross_entropy(logits, labels.to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 4:
        print(step, round(loss.item(), 4))
