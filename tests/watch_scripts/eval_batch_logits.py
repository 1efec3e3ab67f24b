"""Evaluation takes eight sequences at a time where training takes one."""

import torch
from torch import nn

VOCAB = 2003


class LanguageModel(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, width)
        self.mix = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, VOCAB)

    def forward(self, ids):
        hidden, _ = self.mix(self.embed(ids))
        return self.head(hidden)


def loss_of(model, ids):
    logits = model(ids[:, :-1])  # the mistake: of eight sequences at once
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def main():
    torch.manual_seed(0)
    model = LanguageModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for _ in range(5):
            optimizer.zero_grad()
            loss_of(model, torch.randint(VOCAB, (1, 65))).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            losses = [loss_of(model, torch.randint(VOCAB, (8, 65))).item() for _ in range(3)]
        model.train()
        print(sum(losses) / 3)


main()
