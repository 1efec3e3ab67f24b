import torch
from torch import nn

torch.manual_seed(54)
torch.set_num_threads(1)


class Retrieval:
    def __init__(self, gallery, labels):
        self.gallery, self.labels = gallery, labels
        self.distances = None

    @torch.no_grad()
    def evaluate(self, model):
        z = model(self.gallery)
        self.distances = torch.cdist(z, z)
        self.distances.fill_diagonal_(float("inf"))
        nearest = self.distances.argmin(1)
        return (self.labels[nearest] == self.labels).float().mean().item()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 256), nn.Linear(256, 256), nn.Linear(256, 8)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def batch(n):
    labels = torch.randint(12, (n,))
    return nn.functional.one_hot(labels, 16).float() + 0.4 * torch.randn(n, 16), labels


net, judge = Net(), Retrieval(*batch(1500))
head = nn.Linear(8, 12)
opt = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.05)
for step in range(60):
    x, y = batch(2000)
    loss = nn.functional.cross_entropy(head(net(x)), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 15 == 14:
        print(step, loss.item(), judge.evaluate(net))
