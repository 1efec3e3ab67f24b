import torch
from torch import nn

torch.manual_seed(140)
torch.set_num_threads(1)


class Growing(nn.Module):
    def __init__(self, width=224):
        super().__init__()
        self.width = width
        self.stem, self.head = nn.Linear(20, width), nn.Linear(width, 3)
        self.stages = nn.ModuleList()

    def grow(self):
        block = nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, self.width))
        nn.init.zeros_(block[2].weight)
        self.stages.append(block)
        return block.parameters()

    def forward(self, x):
        h = torch.relu(self.stem(x))
        for s in self.stages:
            h = h + s(h)
        return self.head(h)


net = Growing()
opt = torch.optim.Adam(net.parameters(), 1e-3)
w = torch.randn(20, 3)
for step in range(100):
    if step in (15, 30):
        opt.add_param_group({"params": list(net.grow())})
    x = torch.randn(96, 20)
    loss = nn.functional.cross_entropy(net(x), (x.sin() @ w).argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        print(step, len(net.stages), loss.item())
