import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(46)
random.seed(46)
device = "cuda" if torch.cuda.is_available() else "cpu"

MAX_TOKENS = 192
MAX_LENGTH = 96


def corpus(n):
    for index in range(n):
        length = 400 if index % 45 == 44 else random.randint(20, 90)
        yield [random.randrange(1, 400) for _ in range(length)][:MAX_LENGTH], index % 3


def token_batches(samples):
    ordered = sorted(samples, key=lambda s: len(s[0]))
    batches, current = [], []
    for sample in ordered:
        if current and len(sample[0]) * (len(current) + 1) > MAX_TOKENS:
            batches.append(current)
            current = []
        current.append(sample)
    batches.append(current)
    batches.reverse()
    first, rest = batches[0], batches[1:]
    random.shuffle(rest)
    return [first, *rest]


def pad(batch):
    width = max(len(tokens) for tokens, _ in batch)
    ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _ in batch], device=device)
    return ids, torch.tensor([label for _, label in batch], device=device)


class Classifier(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.embed = nn.Embedding(400, dim, padding_idx=0)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 3)

    def forward(self, ids):
        x = self.encoder(self.embed(ids), src_key_padding_mask=ids.eq(0))
        return self.head(x[:, 0])


model = Classifier().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step, batch in enumerate(token_batches(list(corpus(150)))):
    ids, labels = pad(batch)
    loss = nn.functional.cross_entropy(model(ids), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, tuple(ids.shape), round(loss.item(), 4))
