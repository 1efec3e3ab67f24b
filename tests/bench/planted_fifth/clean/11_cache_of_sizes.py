from functools import lru_cache

import torch
from torch import nn

torch.manual_seed(111)
torch.set_num_threads(1)
CLASSES = 64


@lru_cache(maxsize=None)
def smoothing_matrix(classes, eps):
    off = eps / (classes - 1)
    return torch.full((classes, classes), off).fill_diagonal_(1 - eps)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.fc = nn.Embedding(500, 32), nn.Linear(32, CLASSES)

    def forward(self, ids):
        return self.fc(self.emb(ids).mean(1))


net = Net()
opt = torch.optim.Adam(net.parameters(), 5e-3)
for step in range(120):
    ids = torch.randint(500, (96, 12))
    labels = ids[:, 0] % CLASSES
    eps = round(0.1 + 0.05 * (step % 4), 2)
    loss = -(smoothing_matrix(CLASSES, eps)[labels] * net(ids).log_softmax(1)).sum(1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 40 == 0:
        print(step, loss.item(), smoothing_matrix.cache_info().currsize)
