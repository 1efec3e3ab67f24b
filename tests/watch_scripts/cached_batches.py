"""A loader that keeps each batch on the device "to be faster in the next epoch"."""

import torch
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class CachingLoader:
    def __init__(self, make_batch, length):
        self.make_batch, self.length = make_batch, length
        self.cache = []

    def __iter__(self):
        for _ in range(self.length):
            batch = self.make_batch().to(device)
            self.cache.append(batch)  # the mistake
            yield batch


def main():
    torch.manual_seed(0)
    loader = CachingLoader(lambda: torch.randn(128, 100), length=9)
    model = nn.Linear(100, 10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        for x in loader:
            loss = model(x).logsumexp(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


main()
