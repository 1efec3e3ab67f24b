import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)
backbone = nn.Sequential(nn.Linear(50, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU())
head = nn.Linear(300, 7)
for p in backbone.parameters():
    p.requires_grad = False
opt = torch.optim.AdamW([{"params": head.parameters(), "lr": 1e-3}, {"params": backbone.parameters(), "lr": 1e-4}])


def unfreeze():
    for p in backbone.parameters():
        p.requires_grad = True


for step in range(100):
    if step == 15:
        unfreeze()
    x = torch.randn(32, 50)
    y = x[:, :7].argmax(1)
    loss = nn.functional.cross_entropy(head(backbone(x)), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        n = sum(p.numel() for p in [*backbone.parameters(), *head.parameters()] if p.requires_grad)
        print(step, "trainable", n, "loss", loss.item())
