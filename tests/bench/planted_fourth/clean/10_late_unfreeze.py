import torch
from torch import nn

torch.manual_seed(110)
torch.set_num_threads(1)


class Finetune:
    def __init__(self):
        self.backbone = nn.Sequential(nn.Linear(100, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU())
        self.head = nn.Linear(384, 6)
        self.backbone.requires_grad_(False)
        self.opt = torch.optim.AdamW(self.head.parameters(), 1e-3)

    def unfreeze(self):
        self.backbone.requires_grad_(True)
        self.opt.add_param_group({"params": list(self.backbone.parameters()), "lr": 1e-4})

    def freeze(self):
        self.backbone.requires_grad_(False)

    def step(self, x, y):
        loss = nn.functional.cross_entropy(self.head(self.backbone(x)), y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()


w = torch.randn(100, 6)
run = Finetune()
for step in range(80):
    if step == 30:
        run.unfreeze()
    if step == 65:
        run.freeze()
    x = torch.randn(48, 100)
    value = run.step(x, (x @ w).argmax(1))
    if step % 20 == 0:
        print(step, value)
