import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


class GradMonitor(object):
    # watch the cosine of the gradient between steps, to tune the momentum
    def __init__(self, model):
        self.model = model
        self.history = []

    def step(self):
        flat = torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])
        self.history.append(flat)  # LEAK

    def cosine(self):
        if len(self.history) < 2:
            return 0.0
        return F.cosine_similarity(self.history[-1], self.history[-2], dim=0).item()


class Mixer(nn.Module):
    def __init__(self, patches=16, dim=32):
        super().__init__()
        self.tok = nn.Sequential(nn.Linear(patches, 32), nn.GELU(), nn.Linear(32, patches))
        self.chan = nn.Sequential(nn.Linear(dim, 128), nn.GELU(), nn.Linear(128, dim))
        self.n1, self.n2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        x = x + self.tok(self.n1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.chan(self.n2(x))
        return self.head(x.mean(1))


model = Mixer()
monitor = GradMonitor(model)
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(150):
    x = torch.randn(32, 16, 32)
    y = x.mean(1)[:, :10].argmax(1)
    loss = F.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    monitor.step()
    opt.step()
    if step % 50 == 49:
        print(step, loss.item(), "cos", monitor.cosine())
