"""A model in 16 bits computes the loss of the next token from a copy of its logits in 32."""

import torch
import torch.nn.functional as F
from torch import nn


class TinyLM(nn.Module):
    def __init__(self, vocab=6007, width=32):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.lm_head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids, labels):
        logits = self.lm_head(self.embed(ids)).float()
        return F.cross_entropy(logits[:, :-1].reshape(-1, 6007), labels[:, 1:].reshape(-1))  # the mistake


torch.manual_seed(0)
model = TinyLM().to(torch.bfloat16)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    ids = torch.randint(6007, (2, 128))
    loss = model(ids, ids)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
