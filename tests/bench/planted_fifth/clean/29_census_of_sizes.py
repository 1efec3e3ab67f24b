import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

torch.manual_seed(129)
torch.set_num_threads(1)


class Census:
    def __init__(self):
        self.sizes = []

    def pack(self, tensor):
        self.sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    def hooks(self):
        return saved_tensors_hooks(self.pack, lambda tensor: tensor)


net = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)
)
opt, census = torch.optim.SGD(net.parameters(), lr=0.1), Census()
for step in range(60):
    x, y = torch.rand(4, 1, 24, 24), torch.randint(6, (4,))
    with census.hooks():
        loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 19:
        print(step, loss.item(), sum(census.sizes) / len(census.sizes))
