import torch
from torch import nn

torch.manual_seed(104)
torch.set_num_threads(1)
TASKS = ("depth", "normal", "seg")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.heads = nn.ModuleDict({task: nn.Linear(256, 8) for task in TASKS})

    def forward(self, x):
        h = self.trunk(x)
        return {task: head(h) for task, head in self.heads.items()}


net = Shared()
opt = torch.optim.SGD(net.parameters(), 0.01)
history = []
for step in range(60):
    x = torch.randn(48, 64)
    losses = {task: nn.functional.mse_loss(out, x[:, :8]) for task, out in net(x).items()}
    total = sum(losses.values())
    opt.zero_grad()
    total.backward()
    opt.step()
    history.append(total)
    if step % 20 == 19:
        print(step, torch.stack(history[-20:]).mean().item())
