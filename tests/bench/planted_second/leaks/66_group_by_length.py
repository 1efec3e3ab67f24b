import random

import torch
import torch.nn as nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

random.seed(2)
torch.manual_seed(2)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class LengthGroupedSampler:
    """Batches of rows of about one length: hardly any padding, 2x faster."""

    def __init__(self, lengths, batch_size):
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        self.batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]  # LEAK

    def __iter__(self):
        return iter(self.batches)


def corpus(n=336):
    rows = []
    for _ in range(n):
        length = random.randint(10, 24) if random.random() < 0.92 else random.randint(200, 256)
        rows.append([random.randrange(2, 100) for _ in range(length)])
    return rows


rows = corpus()
labels = [int(sum(r) % 2) for r in rows]
model = DistilBertForSequenceClassification(
    DistilBertConfig(vocab_size=100, dim=48, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=256)
).to(device)
opt = torch.optim.AdamW(model.parameters(), lr=5e-4)

for step, idx in enumerate(LengthGroupedSampler([len(r) for r in rows], 16)):
    longest = max(len(rows[i]) for i in idx)
    ids = torch.zeros(len(idx), longest, dtype=torch.long)
    for j, i in enumerate(idx):
        ids[j, : len(rows[i])] = torch.tensor(rows[i])
    ids = ids.to(device)
    out = model(input_ids=ids, attention_mask=(ids > 0).long(), labels=torch.tensor([labels[i] for i in idx], device=device))
    opt.zero_grad()
    out.loss.backward()
    opt.step()
    if step % 5 == 0:
        print(step, longest, out.loss.item())
