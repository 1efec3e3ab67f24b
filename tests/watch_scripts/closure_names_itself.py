"""An inner function that calls itself is a circle, which keeps what it closes over until the collector comes."""

import torch


def pyramid(picture, levels):
    made = {0: picture}

    def at(level):  # the mistake
        if level not in made:
            made[level] = at(level - 1)[..., ::2, ::2].contiguous()
        return made[level]

    return at(levels)


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(160):
    optimizer.zero_grad()
    model(pyramid(torch.randn(16, 3, 32, 32), 2)).mean().backward()
    optimizer.step()
