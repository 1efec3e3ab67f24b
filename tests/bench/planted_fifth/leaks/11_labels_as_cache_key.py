from functools import lru_cache

import torch
from torch import nn

torch.manual_seed(11)
torch.set_num_threads(1)
CLASSES = 64


@lru_cache(maxsize=None)
def smoothed(labels, eps=0.1):
    target = torch.full((len(labels), CLASSES), eps / (CLASSES - 1))
    return target.scatter_(1, labels[:, None], 1 - eps)


def soft_cross_entropy(logits, labels):
    return -(smoothed(labels) * logits.log_softmax(1)).sum(1).mean()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(500, 32)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, ids):
        return self.fc(self.emb(ids).mean(1))


def main():
    net = Net()
    opt = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(120):
        ids = torch.randint(500, (96, 12))
        labels = ids[:, 0] % CLASSES
        loss = soft_cross_entropy(net(ids), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 40 == 0:
            print(step, loss.item())


main()
