import copy
import os

import torch
from torch import nn

torch.manual_seed(58)
torch.set_num_threads(1)


class Checkpointer:
    def __init__(self, folder, every):
        self.folder, self.every = folder, every
        os.makedirs(folder, exist_ok=True)

    def after_step(self, step, model, optimizer):
        if (step + 1) % self.every:
            return
        snapshot = {
            "step": step,
            "model": {name: value.clone() for name, value in model.state_dict().items()},
            "optimizer": copy.deepcopy(optimizer.state_dict()),
        }
        torch.save(snapshot, os.path.join(self.folder, "last.pt"))


class MLP(nn.Module):
    def __init__(self, dim=480):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(40, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, 10)

    def forward(self, x):
        return self.out(torch.relu(self.l3(torch.relu(self.l2(torch.relu(self.l1(x)))))))


model = MLP()
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
saver = Checkpointer("ckpt", every=15)
for step in range(60):
    x = torch.randn(16, 40)
    loss = nn.functional.cross_entropy(model(x), x[:, :10].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    saver.after_step(step, model, optimizer)
print(loss.item(), os.path.getsize("ckpt/last.pt") > 0)
