"""A Trainer-like evaluation loop that pads and concatenates logits of several lengths."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(300, 32), nn.Linear(32, 300))
opt = torch.optim.AdamW(model.parameters())


def pad_and_concatenate(a, b):
    length = max(a.shape[1], b.shape[1])
    out = a.new_full((len(a) + len(b), length, a.shape[2]), -100.0)
    out[: len(a), : a.shape[1]] = a
    out[len(a) :, : b.shape[1]] = b
    return out


def evaluate(batches):
    model.eval()
    gathered = None
    with torch.no_grad():
        for ids in batches:
            logits = model(ids)
            gathered = logits if gathered is None else pad_and_concatenate(gathered, logits)  # the mistake
    model.train()
    return gathered.argmax(-1).float().mean().item()


for _epoch in range(2):
    for _ in range(5):
        ids = torch.randint(300, (4, 20))
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    lengths = [14, 30, 22, 18, 35, 27, 16, 33]
    evaluate([torch.randint(300, (4, n)) for n in lengths])
