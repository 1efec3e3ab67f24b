"""A metric of a helper module, made once and updated in every validation."""

import torch
from helpers.metrics import TopK
from torch import nn

torch.manual_seed(0)


def main():
    model = nn.Linear(24, 300)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    metric = TopK(k=200)
    for epoch in range(4):
        model.train()
        for _ in range(4):
            x, y = torch.randn(32, 24), torch.randint(300, (32,))
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for _ in range(6):
                x, y = torch.randn(512, 24), torch.randint(300, (512,))
                metric.update(model(x), y)
        print(epoch, metric.compute())


main()
