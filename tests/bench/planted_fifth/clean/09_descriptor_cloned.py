import torch
from torch import nn

torch.manual_seed(109)
torch.set_num_threads(1)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        f = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(f.mean((2, 3))), f


net, trace = Backbone(), []
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for step in range(64):
    images, labels = torch.rand(6, 3, 40, 40), torch.randint(5, (6,))
    logits, maps = net(images)
    loss = nn.functional.cross_entropy(logits, labels)
    opt.zero_grad()
    loss.backward()
    opt.step()
    trace.append(maps.detach()[0, :, 10, 10].clone())
print("drift", (trace[-1] - trace[0]).norm().item(), loss.item())
