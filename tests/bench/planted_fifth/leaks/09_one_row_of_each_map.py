import torch
from torch import nn

torch.manual_seed(9)
torch.set_num_threads(1)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1)
        self.head = nn.Linear(24, 5)

    def features(self, x):
        return torch.relu(self.conv2(torch.relu(self.conv1(x))))

    def forward(self, x):
        f = self.features(x)
        return self.head(f.mean((2, 3))), f


class Tracker:
    """Follows the centre pixel's descriptor of the first image."""

    def __init__(self):
        self.trace = []

    def add(self, feature_map):
        centre = feature_map.shape[-1] // 2
        self.trace.append(feature_map.detach()[0, :, centre, centre])

    def drift(self):
        return (self.trace[-1] - self.trace[0]).norm().item()


net, tracker = Backbone(), Tracker()
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for step in range(64):
    images = torch.rand(6, 3, 40, 40)
    labels = torch.randint(5, (6,))
    logits, maps = net(images)
    loss = nn.functional.cross_entropy(logits, labels)
    opt.zero_grad()
    loss.backward()
    opt.step()
    tracker.add(maps)
print("drift of the centre:", tracker.drift(), "entries", len(tracker.trace))
