import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

torch.set_num_threads(1)
torch.manual_seed(77)


class NoiseScale:
    def __init__(self, window=10):
        self.window = window
        self.grads = []

    def record(self, params):
        flat = parameters_to_vector([p.grad for p in params])
        self.grads.append(flat)

    def value(self):
        g = torch.stack(self.grads[-self.window:])
        mean = g.mean(0)
        return ((g - mean).pow(2).sum(1).mean() / mean.pow(2).sum()).item()


def batch(n=64):
    x = torch.randn(n, 50)
    return x, torch.sin(x[:, :3].sum(1, keepdim=True))


model = nn.Sequential(nn.Linear(50, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 1))
params = list(model.parameters())
optimizer = torch.optim.RMSprop(params, lr=5e-4)
scale = NoiseScale()
step = 0
while step < 70:
    x, y = batch()
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    scale.record(params)
    optimizer.step()
    step += 1
    if step % 14 == 0:
        print(f"step={step} loss={loss.item():.4f} noise={scale.value():.2f}")
