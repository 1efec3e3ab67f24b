import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

torch.manual_seed(13)
torch.set_num_threads(1)


class SWAG:
    def __init__(self, model, max_rank=10, start=15):
        self.model, self.max_rank, self.start = model, max_rank, start
        self.mean, self.sq, self.n = None, None, 0
        self.deviations = []

    @torch.no_grad()
    def collect(self, step):
        if step < self.start:
            return
        w = parameters_to_vector(self.model.parameters())
        if self.mean is None:
            self.mean, self.sq = w.clone(), w.pow(2)
        self.n += 1
        self.mean.lerp_(w, 1 / self.n)
        self.sq.lerp_(w.pow(2), 1 / self.n)
        self.deviations.append(w - self.mean)

    def sample(self, scale=0.5):
        columns = torch.stack(self.deviations[-self.max_rank :])
        noise = torch.randn(len(columns)) @ columns / (2 * (len(columns) - 1)) ** 0.5
        return self.mean + scale * noise


net = nn.Sequential(nn.Linear(50, 120), nn.Tanh(), nn.Linear(120, 10))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
swag = SWAG(net)
for step in range(90):
    x = torch.randn(64, 50)
    loss = nn.functional.cross_entropy(net(x), x[:, :10].argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    swag.collect(step)
    if step % 30 == 29:
        print(step, loss.item(), swag.sample().norm().item())
