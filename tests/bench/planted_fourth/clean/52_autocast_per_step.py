import torch
from torch import nn

torch.manual_seed(152)
torch.set_num_threads(1)


class Decoder(nn.Module):
    def __init__(self, k=32):
        super().__init__()
        self.mix, self.out = nn.Linear(k, 64), nn.Linear(64, 48)

    def forward(self, z):
        return self.out(torch.relu(self.mix(z)))


def fit(decoder, target, steps=3):
    z = nn.Parameter(torch.zeros(len(target), 32))
    opt = torch.optim.SGD([z], lr=5.0)
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pred = decoder(z)
        loss = (pred.float() - target).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item(), z.detach().mean(0)


decoder = Decoder().requires_grad_(False)
errors, mean = [], torch.zeros(32)
for i in range(50):
    error, centre = fit(decoder, torch.rand(900, 48))
    errors.append(error)
    mean += (centre - mean) / (i + 1)
print(sum(errors) / len(errors), mean.norm().item())
