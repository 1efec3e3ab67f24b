"""Predictions taken off the card at once; an optimizer with an empty group; a proxy of what is gone."""

import weakref

import torch
from torch import nn

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Session:
    pass


session = Session()
weak = weakref.proxy(session)
del session

model = nn.Sequential(nn.Embedding(500, 32), nn.Linear(32, 500)).to(device)
decayed = [p for p in model.parameters() if p.dim() > 2]
others = [p for p in model.parameters() if p.dim() <= 2]
optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others}], lr=1e-3)
predictions = []
for _ in range(40):
    tokens = torch.randint(0, 500, (2, 16)).to(device)
    out = model(tokens)
    loss = nn.functional.cross_entropy(out.flatten(0, 1), tokens.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    predictions.append(out.detach().argmax(-1).to("cpu"))
    if len(predictions) > 1:
        predictions[-2] = out.detach()[:, -1].to("cpu")
print(len(predictions))
