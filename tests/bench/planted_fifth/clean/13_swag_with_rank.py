import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

torch.manual_seed(113)
torch.set_num_threads(1)


class SWAG:
    def __init__(self, model, max_rank=10):
        self.model, self.max_rank, self.n, self.mean, self.deviations = model, max_rank, 0, None, []

    @torch.no_grad()
    def collect(self):
        w = parameters_to_vector(self.model.parameters())
        self.n += 1
        self.mean = w.clone() if self.mean is None else self.mean.lerp_(w, 1 / self.n)
        self.deviations.append(w - self.mean)
        if len(self.deviations) > self.max_rank:
            self.deviations.pop(0)


net = nn.Sequential(nn.Linear(50, 120), nn.Tanh(), nn.Linear(120, 10))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
swag = SWAG(net)
for step in range(90):
    x = torch.randn(64, 50)
    loss = nn.functional.cross_entropy(net(x), x[:, :10].argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step >= 10:
        swag.collect()
    if step % 30 == 29:
        print(step, loss.item(), torch.stack(swag.deviations).norm().item())
