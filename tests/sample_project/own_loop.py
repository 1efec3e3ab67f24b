"""The training code of a project that knows nothing of the harness."""

import torch

VOCABULARY, HIDDEN, LENGTH = 512, 64, 32


class LanguageModel(torch.nn.Module):
    """An embedding, a layer and a head."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, HIDDEN)
        self.mix = torch.nn.Linear(HIDDEN, HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, ids):
        return self.head(torch.relu(self.mix(self.embed(ids))))


def loss_of(model, ids):
    logits = model(ids[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def train_step(model, optimizer, ids):
    loss = loss_of(model, ids)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss
