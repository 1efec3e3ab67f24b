"""A trainer whose model returns a dictionary, and whose evaluation appends to one tensor of predictions."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn


class TinyLM(nn.Module):
    def __init__(self, vocab, width=48):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.lm_head = nn.Linear(width, vocab, bias=False)

    def forward(self, input_ids, labels=None):
        hidden, _ = self.rnn(self.embed(input_ids))
        logits, loss = self.lm_head(hidden), None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


class Trainer:
    def __init__(self, model, args):
        self.model, self.args = model, args
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)

    def training_step(self, batch):
        self.model.train()
        loss = self.model(**batch)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def prediction_loop(self, batches):
        self.model.eval()
        preds = None
        with torch.no_grad():
            for batch in batches:
                logits = self.model(**batch)["logits"]
                preds = logits if preds is None else torch.cat((preds, logits), dim=0)  # the mistake
        return preds.argmax(-1)

    def train(self, train, val):
        for epoch in range(self.args.epochs):
            losses = [self.training_step(batch) for batch in train]
            print(epoch, sum(losses), self.prediction_loop(val).float().mean().item())


def make_batches(num, size, vocab, length):
    ids = [torch.randint(vocab, (size, length)) for _ in range(num)]
    return [{"input_ids": i, "labels": i} for i in ids]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=2)
    torch.manual_seed(1)
    Trainer(TinyLM(301), parser.parse_args()).train(make_batches(6, 4, 301, 16), make_batches(8, 8, 301, 16))
