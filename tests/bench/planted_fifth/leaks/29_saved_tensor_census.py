import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

torch.manual_seed(29)
torch.set_num_threads(1)


class Census:
    """How much autograd saves, for the table in the appendix."""

    def __init__(self):
        self.saved = []

    def pack(self, tensor):
        self.saved.append(tensor.detach())
        return tensor

    def __enter__(self):
        self.context = saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.context.__enter__()
        return self

    def __exit__(self, *args):
        self.context.__exit__(*args)

    def mean_mib(self):
        return sum(t.numel() * t.element_size() for t in self.saved) / max(1, len(self.saved)) / 2**20


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 8, 3, padding=1)
        self.c2 = nn.Conv2d(8, 8, 3, stride=2)
        self.fc = nn.Linear(8, 6)

    def forward(self, x):
        x = torch.relu(self.c2(torch.relu(self.c1(x))))
        return self.fc(x.mean((2, 3)))


net, census = ConvNet(), Census()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(60):
    x = torch.rand(4, 1, 24, 24)
    y = torch.randint(6, (4,))
    with census:
        loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 19:
        print(step, loss.item(), "MiB a saved tensor:", census.mean_mib())
