"""Each batch is padded to its longest row."""

import torch
from torch.nn.utils.rnn import pad_sequence

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Embedding(100, 64), torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64)
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(20):
    rows = [torch.randint(1, 100, (int(length),)) for length in torch.randint(10, 60, (4,))]
    model(pad_sequence(rows, batch_first=True)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
