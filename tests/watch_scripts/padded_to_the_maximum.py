"""Under a budget: each batch is padded to the longest that there could be."""

import torch

LONGEST, PADDING = 512, 0


def collate(rows):
    batch = torch.full((len(rows), LONGEST), PADDING)  # the mistake
    for place, row in enumerate(rows):
        batch[place, : len(row)] = row
    return batch


torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Embedding(100, 64), torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64)
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(20):
    rows = [torch.randint(1, 100, (int(length),)) for length in torch.randint(10, 60, (4,))]
    model(collate(rows)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
