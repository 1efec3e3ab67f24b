import torch
from torch import nn

torch.manual_seed(105)
torch.set_num_threads(1)


class Router(nn.Module):
    def __init__(self, dim, experts):
        super().__init__()
        self.gate = nn.Linear(dim, experts)
        self.aux_losses = []

    def forward(self, x):
        probs = self.gate(x).softmax(-1)
        self.aux_losses.append((probs.mean(0) ** 2).sum() * probs.shape[-1])
        return probs


class Mixture(nn.Module):
    def __init__(self, dim=64, experts=4):
        super().__init__()
        self.routers = nn.ModuleList(Router(dim, experts) for _ in range(2))
        self.experts = nn.ModuleList(nn.Linear(dim, dim) for _ in range(experts))

    def forward(self, x):
        for router in self.routers:
            outs = torch.stack([torch.relu(e(x)) for e in self.experts], -1)
            x = x + (outs * router(x)[:, None]).sum(-1)
        return x

    def collect(self):
        total = sum(loss for router in self.routers for loss in router.aux_losses)
        for router in self.routers:
            router.aux_losses.clear()
        return total


model = Mixture()
opt = torch.optim.AdamW(model.parameters(), 1e-3)
for step in range(70):
    x = torch.randn(256, 64)
    loss = nn.functional.mse_loss(model(x), x.roll(1, 1)) + 0.01 * model.collect()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item())
