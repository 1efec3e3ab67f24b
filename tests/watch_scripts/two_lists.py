"""What is kept of training grows; what is kept of the evaluation after it is another list's."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(500, 32)
        self.head = nn.Linear(32, 500)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


torch.manual_seed(0)
model = Net()
optimizer = torch.optim.AdamW(model.parameters())
kept = []
for _ in range(40):
    tokens = torch.randint(0, 500, (4, 16))
    out = model(tokens)
    loss = nn.functional.cross_entropy(out.flatten(0, 1), tokens.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    kept.append(out.detach())  # the mistake
model.eval()
logits = []
with torch.no_grad():
    for _ in range(10):
        logits.append(model(torch.randint(0, 500, (4, 16))))
print(len(kept), len(logits))
