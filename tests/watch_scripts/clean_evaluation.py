"""Evaluation as it should be: no gradients, predictions to the host, the metric reset."""

import torch
from torch import nn

torch.manual_seed(0)


class Accuracy:
    def __init__(self):
        self.reset()

    def reset(self):
        self.right = torch.zeros(())
        self.seen = 0

    def update(self, logits, targets):
        self.right += (logits.argmax(-1) == targets).sum()
        self.seen += len(targets)

    def compute(self):
        return (self.right / self.seen).item()


@torch.no_grad()
def evaluate(model, metric):
    model.eval()
    metric.reset()
    predictions = []
    for _ in range(8):
        x, y = torch.randn(256, 32), torch.randint(300, (256,))
        logits = model(x)
        metric.update(logits, y)
        predictions.append(logits.cpu())
    model.train()
    return metric.compute(), torch.cat(predictions).std().item()


def main():
    model, metric = nn.Linear(32, 300), Accuracy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        for _ in range(4):
            x, y = torch.randn(64, 32), torch.randint(300, (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        print(evaluate(model, metric))


main()
