import math

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(37)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB = 300


class GRULanguageModel(nn.Module):
    def __init__(self, dim=96):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, dim)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, VOCAB)

    def forward(self, ids):
        return self.out(self.rnn(self.embed(ids))[0])


class Perplexity:
    def __init__(self):
        self.reset()

    def reset(self):
        self.total = torch.zeros((), device=device)
        self.count = 0

    def update(self, logits, target):
        self.total += F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum").detach()
        self.count += target.numel()

    def compute(self):
        return math.exp((self.total / self.count).item())


def batches(n, size):
    for _ in range(n):
        ids = torch.randint(0, VOCAB, (size, 33), device=device)
        yield ids[:, :-1], ids[:, 1:]


model = GRULanguageModel().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
train_ppl, val_ppl = Perplexity(), Perplexity()
for epoch in range(10):
    model.train()
    for inputs, targets in batches(5, 4):
        logits = model(inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        train_ppl.update(logits, targets)
    model.eval()
    with torch.no_grad():
        for inputs, targets in batches(3, 4):
            val_ppl.update(model(inputs), targets)
    print(f"epoch {epoch} train {train_ppl.compute():.1f} val {val_ppl.compute():.1f}")
    train_ppl.reset()
    val_ppl.reset()
